# ruff: noqa
# fmt: off
"""Regression of a noisy curve, in the style of the legacy framework.

Kept as such files are: legacy names, `tf.keras`, two blanks of indentation, everything at the top level.
"""

import numpy as np
import tensorflow as tf

workingFolder = "experiments/noisy_curve"
session_name = "noisy_curve"

hparams = {
    "hiddenNeurons": 8,
    "predictSmoothParams": True,
    "learningRate": 0.05,
    "nbEpoch": 3,
    "addNoise": True,
    "procID": 0,
}

# devices
used_gpu_IDs = []
useXLA = False
use_profiling = False

model_file = "model_noisy_curve.py"
weights_moving_averages = hparams["predictSmoothParams"]
random_seed = 7

# training
nbEpoch = hparams["nbEpoch"]
early_stopping_patience = 10
monitored_loss_name = "val_loss"

# data
raw_data_dir_train = ""
raw_data_dir_val = ""
raw_data_filename_extension = ""
nb_train_samples = 160
nb_val_samples = 64
batch_size = 16
steps_per_epoch = nb_train_samples // batch_size
validation_steps = nb_val_samples // batch_size
reference_labels = ["values"]

# serving
tensorflow_server_address = "localhost"
tensorflow_server_port = 9000
wait_for_server_ready_int_secs = 5
serving_client_timeout_int_secs = 1
served_input_names = ["input"]
served_head_names = ["prediction"]

# used below only
curve_range = 3.0


def target_curve(x):
  y = np.sin(x) + 0.5 * x
  if hparams["addNoise"]:
    y = y + np.random.normal(scale=0.1, size=x.shape)
  return y.astype(np.float32)


def addon_callbacks(model, train_samples, val_samples):
  return {}


def get_learningRate():
  return hparams["learningRate"]


def get_optimizer(model, loss, learning_rate):
  return tf.keras.optimizers.RMSprop(learning_rate=learning_rate)


def get_metrics(model, loss):
  return ["mae"]


def get_total_loss(model):
  return "mean_squared_error"


def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch):
  samples = nb_train_samples if isTraining else nb_val_samples
  x = np.random.uniform(-curve_range, curve_range, size=(samples, 1)).astype(np.float32)
  dataset = tf.data.Dataset.from_tensor_slices((x, target_curve(x)))
  if isTraining:
    dataset = dataset.shuffle(samples)
  return dataset.batch(batch_size, drop_remainder=True).prefetch(1)


def get_served_module(model, model_name):
  class ExportedModule(tf.Module):
    def __init__(self, model):
      super().__init__()
      self.model = model

    @tf.function(input_signature=[tf.TensorSpec(shape=[None, 1], dtype=tf.float32, name=served_input_names[0])])
    def served_model(self, input):
      prediction = self.model(input)
      return {served_head_names[0]: prediction, "prediction_plus_1": prediction + 1.0}

  return ExportedModule(model)


class Client_IO:
  def __init__(self, clientInitSpecs={}, debugMode=False):
    self.specs = clientInitSpecs
    self.debugMode = debugMode
    self.answers = []

  def getInputData(self, idx):
    if idx > 3:
      raise StopIteration
    self.x = np.linspace(-curve_range, curve_range, num=10).astype(np.float32).reshape(-1, 1)
    return {served_input_names[0]: self.x}

  def decodeResponse(self, result):
    self.answers.append(np.array(result.outputs[served_head_names[0]].float_val))

  def finalize(self):
    print("answers:", len(self.answers))
