"""What is read from the parts of a pipeline."""

import tensorflow as tf

from experiments_manager.training.feeds.pipelines import held_data


def test_texts_that_a_pipeline_holds_are_read_whatever_their_rank():
    one, several = tf.data.Dataset.from_tensors("one.csv"), tf.data.Dataset.from_tensor_slices([["a.csv"], ["b.csv"]])
    assert {"one.csv", "a.csv", "b.csv"} <= set(held_data(tf.data.Dataset.zip((one, several)))[1])
