"""What the graph itself says against calls that are shared."""

import pytest

from experiments_manager.serving.models import graph_checks


@pytest.fixture(scope="module")
def reason(tensorflow):
    tf = tensorflow

    def of(function):
        traced = tf.function(function).get_concrete_function(tf.TensorSpec([None, 3], tf.float32))
        definition = traced.graph.as_graph_def()
        outputs = {tensor.name: tensor.dtype for tensor in traced.outputs}
        return graph_checks.reason_to_run_alone(definition, outputs), graph_checks.has_loops(definition, outputs)

    return of


def test_random_numbers_state_and_operations_over_all_samples_are_found_in_functions_too(reason, tensorflow):
    tf = tensorflow
    count, weight = tf.Variable(0.0), tf.Variable(2.0)
    inner = tf.function(lambda x: x + tf.random.normal(tf.shape(x)), autograph=False)

    def counting(x):
        count.assign_add(1.0)
        return x + count

    assert reason(lambda x: weight * x) == ("", False)
    assert "draws random numbers" in reason(inner)[0]
    assert "may keep a state between requests (AssignAddVariableOp)" in reason(counting)[0]
    assert "over all samples (Mean)" in reason(lambda x: tf.argmax(x - tf.reduce_mean(x, 0), 1))[0]
    assert reason(lambda x: x - tf.reduce_mean(x, 0))[0] == ""  # numbers show it when it is tried
    assert reason(lambda x: tf.argmax(x - tf.reduce_mean(x, 1, keepdims=True), 1))[0] == ""
    scale = tf.ones([3])

    def normalised(x):
        y = tf.raw_ops.FusedBatchNormV3(
            x=x[:, None, None, :], scale=scale, offset=scale, mean=[], variance=[], is_training=True
        )
        return tf.argmax(y[0][:, 0, 0], 1)

    assert "FusedBatchNormV3" in reason(normalised)[0]
    assert reason(lambda x: tf.while_loop(lambda v: tf.reduce_max(v) > 1, lambda v: [v / 2], [x])[0])[1]
