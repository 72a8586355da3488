"""Helpers for tests of the training room."""

import pytest


@pytest.fixture
def keras_fit():
    """Trains what settings declare by `keras.Model.fit` alone, and gives its history."""
    import keras
    import tensorflow as tf

    from experiments_manager.training.hook_calls import seeded

    def fit(settings, *, fit=None, **optimizer_options):
        keras.utils.clear_session()
        with seeded(settings, "model"):
            model = settings.call("model")
        rate = settings.resolve("learning_rate", model=model)
        optimizer = keras.optimizers.Adam(rate)
        if settings.has("optimizer"):
            optimizer = settings.resolve("optimizer", model=model, loss=settings.loss, learning_rate=rate)
        optimizer = type(optimizer).from_config(optimizer.get_config() | optimizer_options)
        given = {name: settings.resolve(name, model=model, loss=settings.loss) for name in ("metrics", "loss_weights")}
        model.compile(optimizer=optimizer, loss=settings.resolve("loss", model=model), **given)
        train, validation = (settings.call("dataset", split=split, epoch=0) for split in ("train", "validation"))
        x = (
            {"x": train}
            if isinstance(train, tf.data.Dataset)
            else dict(zip(("x", "y", "sample_weight"), train, strict=False))
        )
        size = None if isinstance(train, tf.data.Dataset) else settings.batch_size
        history = model.fit(
            **x,
            batch_size=size,
            epochs=settings.epochs,
            validation_data=validation,
            validation_batch_size=size,
            shuffle=False,
            verbose=0,
            **(fit or {}),
        )
        return history.history

    return fit
