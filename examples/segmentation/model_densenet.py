"""A small dense-net that keeps what it saw at each resolution, as in Jégou et al. 2017."""

import keras

from experiments_manager.models.segmentation import class_map, conv_block, dense_block, unet_decoder


def model(hparams, class_names):
    """Probabilities [size, size, classes] of an image [size, size, 3] in 0..1."""
    image = keras.Input((hparams["size"], hparams["size"], 3), name="image")
    x = conv_block(image, 16, strides=2)
    seen = []
    for depth in (2, 3):
        x = dense_block(x, depth, growth=12)
        seen.append(x)
        x = keras.layers.MaxPooling2D()(conv_block(x, x.shape[-1] // 2, 1))
    x = unet_decoder(dense_block(x, 4, growth=12), seen, filters=(32, 48))
    return keras.Model(image, class_map(x, len(class_names), scale=2))
