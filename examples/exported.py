"""What the figures of merit ask a run's last exported model for."""

import functools

import tensorflow as tf

from experiments_manager import load_run


def ask(run_dir, **inputs):
    """Gives the outputs of the last version for inputs by name, NumPy arrays both."""
    answers = _signature(run_dir)(**{name: tf.constant(values) for name, values in inputs.items()})
    return {name: values.numpy() for name, values in answers.items()}


@functools.lru_cache(maxsize=1)
def _signature(run_dir):
    versions = (path for path in load_run(run_dir).exports_dir.iterdir() if path.name.isdigit())
    served = tf.saved_model.load(str(max(versions, key=lambda path: int(path.name))))
    signature = served.signatures["serving_default"]
    signature.model = served  # whose variables it reads, and does not keep alive
    return signature
