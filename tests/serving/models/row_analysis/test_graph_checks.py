"""What the graph itself says against calls that are shared."""

import pytest

from experiments_manager.serving.models.row_analysis import graph_checks


@pytest.fixture(scope="module")
def reason(tensorflow):
    tf = tensorflow

    def of(function):
        traced = tf.function(function).get_concrete_function(tf.TensorSpec([None, 3], tf.float32))
        definition = traced.graph.as_graph_def()
        outputs = [tensor.name for tensor in traced.outputs]
        return graph_checks.reason_to_run_alone(definition, outputs), graph_checks.has_loops(definition, outputs)

    return of


def test_random_numbers_and_state_are_found_in_functions_too(reason, tensorflow):
    tf = tensorflow
    count, weight = tf.Variable(0.0), tf.Variable(2.0)
    inner = tf.function(lambda x: x + tf.random.normal(tf.shape(x)), autograph=False)

    def counting(x):
        count.assign_add(1.0)
        return x + count

    assert reason(lambda x: weight * x) == ("", False)
    assert "draws random numbers" in reason(inner)[0]
    assert "may keep a state between requests (AssignAddVariableOp)" in reason(counting)[0]
    assert reason(lambda x: tf.while_loop(lambda v: tf.reduce_max(v) > 1, lambda v: [v / 2], [x])[0])[1]
