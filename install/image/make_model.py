"""Write a SavedModel that doubles its input, for the test of an image that cannot train: make_model.py FOLDER."""

import sys

import tensorflow as tf

module = tf.Module()
module.factor = tf.Variable(2.0)
signature = [tf.TensorSpec([None, 1], tf.float32, name="x")]
double = tf.function(lambda x: {"y": x * module.factor}, input_signature=signature)
tf.saved_model.save(module, f"{sys.argv[1]}/1", signatures=double)
