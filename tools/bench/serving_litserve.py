"""LitServe with the digits CNN, for `serving.py`: batches of up to 64, rows as JSON lists."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import litserve
import numpy as np


class Api(litserve.LitAPI):
    """Calls the SavedModel's function on stacked rows."""

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        import tensorflow as tf

        self._tensor = tf.constant
        self._function = tf.saved_model.load(sys.argv[1] + "/1").signatures["serving_default"]
        [self._input] = self._function.structured_input_signature[1]
        [self._output] = self._function.structured_outputs

    def decode_request(self, request: dict) -> np.ndarray:
        """JSON to a row."""
        return np.asarray(request["instance"], np.float32)

    def batch(self, inputs: list) -> np.ndarray:
        """Turn rows into a batch."""
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Run a batch."""
        return self._function(**{self._input: self._tensor(x)})[self._output].numpy()

    def unbatch(self, output: np.ndarray) -> list:
        """Turn a batch into rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict:
        """Turn a row into JSON."""
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Api(max_batch_size=64, batch_timeout=0.002), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error")
