# ruff: noqa
# fmt: off
"""Classification of points on two rings, in the style of the legacy framework.

It shows what such files also do: names of their own that are settings today (`class_names`, `shuffle`), an empty list
that a function of the same name replaces, a local helper, further hooks, and a dictionary of callbacks.
"""

from __future__ import absolute_import, division, print_function

import os

import numpy as np
import tensorflow as tf

from rings_helpers import make_rings

workingFolder = "experiments/two_rings"
session_name = ""

hparams = {"learningRate": 0.02, "nbEpoch": 2, "dropout": 0.1, "width": 2, "isFLserver": False}
hparams_ext = {"radius": 2.0}
cid = ""

used_gpu_IDs = []
distribution_strategy = "MirroredStrategy"
useXLA = False
use_profiling = False
enable_mixed_precision = False
quantization_aware_training = False
debug = False

model_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "model_two_rings.py")
weights_moving_averages = False
random_seed = 42

nbEpoch = hparams["nbEpoch"]
early_stopping_patience = 5
monitored_loss_name = "val_loss"
monitored_metric = ["accuracy"]

addon_callbacks = []

raw_data_dir_train = "train"
raw_data_dir_val = "val"
raw_data_filename_extension = "*.csv"
nb_train_samples = 128
nb_val_samples = 64
batch_size = 32
steps_per_epoch = nb_train_samples // batch_size
validation_steps = 0
reference_labels = ["ring"]

tensorflow_server_address = "127.0.0.1"
tensorflow_server_port = 9100
wait_for_server_ready_int_secs = 5
serving_client_timeout_int_secs = 1
serve_on_gpu = False
grpc_max_message_length = 4194304
client_async = False
save_only_last_best_model = True
served_input_names = ["point"]
served_head_names = ["ring"]

enable_federated_learning = False
federated_learning_server_address = "localhost:8080"
consume_data_from_kafka = False
kafka_bootstrap_servers = ["localhost:9092"]

# names of this file's own
class_names = ["inner", "outer"]
shuffle = 1000
num_parallel_reads = 4


def prepare_datasets():
  print("nothing to prepare")


def addon_callbacks(model, train_samples, val_samples):
  return {"terminate": tf.keras.callbacks.TerminateOnNaN()}


def get_learningRate():
  return tf.keras.optimizers.schedules.ExponentialDecay(hparams["learningRate"], decay_steps=40, decay_rate=0.5)


def get_optimizer(model, loss, learning_rate):
  return tf.keras.optimizers.Adam(learning_rate=learning_rate)


def get_loss_weights():
  return {"ring": 1.0}


def get_metrics(model, loss):
  return {"ring": "accuracy"}


def get_total_loss(model):
  def ring_loss(y_true, y_pred):
    return tf.keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

  return {"ring": ring_loss}


def get_input_pipeline(folder, is_train, bs, n_epochs):
  points, rings = make_rings(nb_train_samples if is_train else nb_val_samples, hparams_ext["radius"])
  dataset = tf.data.Dataset.from_tensor_slices(({"point": points}, {"ring": rings}))
  return dataset.shuffle(shuffle).batch(bs)


def get_all_test_data(data_dir, isTraining, batch_size, nbEpoch):
  points, rings = make_rings(batch_size, hparams_ext["radius"])
  return tf.data.Dataset.from_tensor_slices(({"point": points}, {"ring": rings})).batch(batch_size)


def custom_tensorboard_logs(model, epoch, logs):
  tf.summary.scalar("parameters", model.count_params(), step=epoch)


def get_served_module(model, model_name):
  class ExportedModule(tf.Module):
    def __init__(self, model):
      super().__init__()
      self.model = model

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name=served_input_names[0])])
    def served_model(self, point):
      return {served_head_names[0]: self.model({"point": point})["ring"]}

  return ExportedModule(model)


class Client_IO:
  def __init__(self, clientInitSpecs={}, debugMode=False):
    self.debugMode = debugMode

  def getInputData(self, idx):
    if idx > 2:
      raise StopIteration
    return {served_input_names[0]: np.ones((1, 2), np.float32)}

  def decodeResponse(self, result):
    print(class_names[int(np.argmax(result.outputs[served_head_names[0]].float_val))])

  def finalize(self):
    print("done")
