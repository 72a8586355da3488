# ruff: noqa
# fmt: off
"""Forecast of series from CSV files, in the style of the legacy framework.

What is special here: the data lie beside the folder that the command is given in, five folders above the one that the
functions run in; the metric is a name alone; loss and optimizer have names that Keras 3 has not any more.
"""

import glob
import os

import numpy as np
import tensorflow as tf

workingFolder = "experiments/examples/series"
session_name = "series"
hparams = {"past": 6, "future": 2, "learningRate": 0.01}

used_gpu_IDs = []
useXLA = False
use_profiling = False
model_file = "model_two_series.py"
weights_moving_averages = True
random_seed = 11
nbEpoch = 2
early_stopping_patience = 3

raw_data_dir_train = "../../../../../measured"
raw_data_dir_val = "../../../../../measured"
raw_data_filename_extension = "*.csv"
nb_train_samples = 0
nb_val_samples = 0
batch_size = 4
reference_labels = ["future"]

tensorflow_server_address = "127.0.0.1"
tensorflow_server_port = 9000
wait_for_server_ready_int_secs = 5
serving_client_timeout_int_secs = 1
served_input_names = ["past", "isfree"]
served_head_names = ["future"]


def addon_callbacks(model, train_samples, val_samples):
  return {}


def get_learningRate():
  return hparams["learningRate"]


def get_optimizer(model, loss, learning_rate):
  return tf.keras.optimizers.legacy.Adam(lr=learning_rate)


def get_metrics(model, loss):
  return "mean_absolute_error"


def get_total_loss(model):
  def loss(y_true, y_pred):
    return tf.keras.losses.mean_squared_error(y_pred, y_true)
  return loss


def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch):
  files = sorted(glob.glob(os.path.join(raw_data_files_folder, raw_data_filename_extension)))
  if len(files) == 0:
    raise ValueError("no files found in " + os.path.abspath(raw_data_files_folder))
  values = np.concatenate([np.loadtxt(file, delimiter=",", skiprows=1) for file in files]).astype(np.float32)
  length = hparams["past"] + hparams["future"]
  windows = np.stack([values[start:start + length] for start in range(len(values) - length)])
  past, future = windows[:, :hparams["past"], :1], windows[:, hparams["past"]:, :1]
  dataset = tf.data.Dataset.from_tensor_slices(((past, windows[:, 0, 1]), future))
  return dataset.batch(batch_size, drop_remainder=True).prefetch(1)


def get_served_module(model, model_name):
  class ExportedModule(tf.Module):
    def __init__(self, model):
      super().__init__()
      self.model = model

    @tf.function(input_signature=[
      tf.TensorSpec(shape=[None, hparams["past"], 1], dtype=tf.float32, name=served_input_names[0]),
      tf.TensorSpec(shape=[None, 1], dtype=tf.float32, name=served_input_names[1])])
    def served_model(self, past, isfree):
      return {served_head_names[0]: self.model([past, isfree])}
  return ExportedModule(model)


class Client_IO:
  def __init__(self, clientInitSpecs={}, debugMode=False):
    self.debugMode = debugMode

  def getInputData(self, idx):
    return {"past": np.zeros([1, hparams["past"], 1], np.float32), "isfree": np.zeros([1, 1], np.float32)}

  def decodeResponse(self, result):
    self.answer = result.outputs[served_head_names[0]].float_val

  def finalize(self):
    pass
