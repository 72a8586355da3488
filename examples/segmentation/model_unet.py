"""A U-Net whose encoder is a MobileNetV2."""

import keras

from experiments_manager.models.segmentation import class_map, mobilenet_v2_encoder, unet_decoder


def model(hparams, settings, class_names):
    """Probabilities [size, size, classes] of an image [size, size, 3] in 0..1."""
    image = keras.Input((hparams["size"], hparams["size"], 3), name="image")
    weights = settings.hparams_ext.get("encoder_weights")
    deepest, seen = mobilenet_v2_encoder(image, alpha=hparams["alpha"], weights=weights, levels=3)
    x = unet_decoder(deepest, seen, filters=(32, 48))
    return keras.Model(image, class_map(x, len(class_names), scale=2))
