"""What is written of a model for people."""

import keras

from experiments_manager.training.setup.model_summary import describe_model


class Spectrum(keras.layers.Layer):
    def build(self, shape):
        self.phase = self.add_weight(name="phase", shape=(2,), dtype="complex64", initializer="zeros", trainable=False)

    def call(self, inputs):
        return inputs


def test_a_model_that_keras_cannot_sum_up_ends_no_run(tmp_path, caplog):
    inputs = keras.Input((2,))
    describe_model(keras.Model(inputs, Spectrum()(inputs)), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "could not be described" in caplog.text
