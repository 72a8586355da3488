"""Does TensorFlow still have what it has no public name for? Each failure names the place to look at."""

import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.compat import tensorflow as compat

SEE = "TensorFlow moved or changed {}; see experiments_manager/compat/tensorflow.py"
DATA = tf.data.Dataset


def test_seeded_operations_draw_the_same_numbers_again(uses):
    def drawn():
        with uses("TensorFlow", "Context._seed or Context._rng"):
            compat.seed_operations(7)
        return [int(x) for x in DATA.range(20).shuffle(20)]

    first = drawn()
    assert first == drawn(), SEE.format("Context._seed")
    tf.random.set_seed(7)
    assert first == [int(x) for x in DATA.range(20).shuffle(20)], SEE.format("what tf.random.set_seed sets")


def test_a_session_callable_takes_and_gives_arrays(uses):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
        tf.multiply(x, 2.0, name="y")
    with tf.compat.v1.Session(graph=graph) as session:
        with uses("TensorFlow", "Session._make_callable_from_options"):
            double = compat.session_callable(session, ["x:0"], ["y:0"])
            values = double(np.array([1.0, 2.0], np.float32))
        assert [value.tolist() for value in values] == [[2.0, 4.0]]
        with pytest.raises(tf.errors.OpError):
            compat.session_callable(session, ["x:0"], ["nothing:0"])


def test_the_state_of_an_iterator_is_copied_at_once_and_written_later(uses, tmp_path):
    data = DATA.range(100).shuffle(20, seed=1).batch(4)
    iterator = iter(data)
    next(iterator)
    with uses("TensorFlow", "OwnedIterator._serialize_to_tensors"):
        state = compat.iterator_state(iterator)
    expected = [batch.numpy().tolist() for batch in iterator]
    with uses("TensorFlow", "Trackable._serialize_to_tensors"):
        compat.write_iterator_state(state, str(tmp_path / "iterator"))
    again = iter(data)
    tf.train.Checkpoint(iterator=again).read(str(tmp_path / "iterator")).assert_consumed()
    assert [batch.numpy().tolist() for batch in again] == expected
    in_memory = iter(data)
    with uses("TensorFlow", "Trackable._restore_from_tensors"):
        compat.restore_iterator_state(in_memory, state)
    assert [batch.numpy().tolist() for batch in in_memory] == expected


def test_a_summary_writer_takes_an_event_that_is_no_summary(uses, tmp_path):
    log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.CHECKPOINT)
    event = tf.compat.v1.Event(step=3, session_log=log).SerializeToString()
    writer = tf.summary.create_file_writer(str(tmp_path))
    with uses("TensorFlow", "SummaryWriter._resource"):
        compat.write_event(writer, event)
    writer.close()
    (file,) = tmp_path.iterdir()
    assert event in file.read_bytes(), SEE.format("what raw_ops.ImportEvent writes")


def test_functions_within_a_graph_are_found_with_the_lines_that_made_them(uses):
    @tf.function(autograph=False)
    def inner(x):
        return tf.sinh(x)

    outer = tf.function(lambda x: inner(x), autograph=False).get_concrete_function(tf.TensorSpec([]))
    with uses("TensorFlow", "Graph._functions"):
        graphs = compat.graphs_within(outer.graph)
    operations = [operation for graph in graphs.values() for operation in graph.get_operations()]
    made = [frame.filename for operation in operations if operation.type == "Sinh" for frame in operation.traceback]
    assert __file__ in made, SEE.format("Graph._functions")
    assert set(graphs) >= {function.signature.name for function in outer.graph.as_graph_def().library.function}


KINDS = {
    "Range": DATA.range(3),
    "TensorSlice": DATA.from_tensor_slices([1, 2]),
    "Map": DATA.range(3).map(lambda x: x),
    "ParallelMap": DATA.range(3).map(lambda x: x, num_parallel_calls=2),
    "ParallelInterleave": DATA.range(3).interleave(lambda x: DATA.range(x), num_parallel_calls=2, deterministic=True),
    "Shuffle": DATA.range(3).shuffle(2),
    "Repeat": DATA.range(3).repeat(),
    "Cache": DATA.range(3).cache(),
    "Prefetch": DATA.range(3).prefetch(1),
    "Batch": DATA.range(3).batch(2),
    "Concatenate": DATA.range(3).concatenate(DATA.range(2)),
    "Zip": DATA.zip(DATA.range(3), DATA.range(2)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_data_sets_have_the_names_that_the_tables_have(kind):
    assert compat.dataset_kind(KINDS[kind]) == kind, SEE.format("the name of a class of data sets")


def test_inputs_of_a_data_set_are_found(uses):
    with uses("TensorFlow", "Dataset._inputs"):
        numbers = {kind: len(compat.dataset_inputs(dataset)) for kind, dataset in KINDS.items()}
    expected = dict.fromkeys(KINDS, 1) | {"Range": 0, "TensorSlice": 0, "Concatenate": 2, "Zip": 2}
    assert numbers == expected, SEE.format("Dataset._inputs")


def test_functions_of_a_data_set_are_found(uses):
    with uses("TensorFlow", "Dataset._functions"):
        graphs = compat.dataset_function_graphs(DATA.range(3).map(lambda x: tf.math.sinh(tf.cast(x, tf.float32))))
    kinds = [operation.type for graph in graphs for operation in graph.get_operations()]
    assert "Sinh" in kinds, SEE.format("Dataset._functions")


def test_tensors_that_a_data_set_holds_are_found():
    (held,) = compat.dataset_tensors(DATA.from_tensor_slices(tf.range(5)))
    assert held.shape == [5], SEE.format("_TensorSliceDataset._tensors")
    (whole,) = compat.dataset_tensors(DATA.from_tensors(tf.range(5)))
    assert whole.shape == [5], SEE.format("_TensorDataset._tensors")
    assert compat.dataset_tensors(DATA.range(5)) == []


def test_a_parallel_map_says_whether_it_keeps_the_order():
    said = {
        order: compat.dataset_is_deterministic(DATA.range(3).map(tf.abs, num_parallel_calls=2, deterministic=order))
        for order in (True, False, None)
    }
    assert said == {True: True, False: False, None: True}, SEE.format("_ParallelMapDataset._deterministic")


def test_a_cache_says_in_which_file_it_is(tmp_path):
    file = str(tmp_path / "cache")
    assert compat.dataset_cache_file(DATA.range(3).cache(file)) == file.encode(), SEE.format("CacheDataset._filename")
    assert compat.dataset_cache_file(DATA.range(3).cache()) == b""
    assert compat.dataset_cache_file(DATA.range(3)) == b""


def test_the_graph_of_a_pipeline_has_all_its_nodes(uses):
    table = tf.Variable(1, dtype=tf.int64)
    with uses("TensorFlow", "Dataset._variant_tensor or raw_ops.DatasetToGraphV2"):
        graph = compat.dataset_graph(DATA.range(3).enumerate().map(lambda number, x: x + table))
    kinds = {node.op for node in graph.node}
    assert {"RangeDataset", "MapDataset", "ZipDataset"} <= kinds, SEE.format("the graph of a data set")


def test_protocol_buffers_of_saved_models_read_what_tensorflow_writes(tmp_path):
    module = tf.Module()
    module.function = tf.function(lambda x: x, input_signature=[tf.TensorSpec([], name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures={"serving": tf.function(lambda x: {"y": x})
                        .get_concrete_function(tf.TensorSpec([], name="x"))})  # fmt: skip
    saved = compat.saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert isinstance(graph, compat.meta_graph_pb2.MetaGraphDef)
    assert "serving" in graph.signature_def
    assert isinstance(compat.config_pb2.ConfigProto(), tf.compat.v1.ConfigProto)


def test_functions_that_refuse_an_argument_are_handed_over_as_the_user_called_them(uses):
    class Other:
        pass

    calls = []

    def handle(function, args, kwargs):
        if not any(isinstance(value, Other) for value in (*args, *kwargs.values())):
            return NotImplemented
        calls.append(compat.public_name(function))
        return "handled"

    with uses("TensorFlow", "GlobalOpDispatcher"):
        compat.dispatch_functions(handle)
    assert tf.square(Other()) == tf.nn.l2_normalize(Other(), axis=-1) == "handled", SEE.format("dispatch")
    assert calls == ["math.square", "math.l2_normalize"], SEE.format("op_dispatch_handler or the names of functions")
    with pytest.raises((TypeError, ValueError)):
        tf.square(object())
    with uses("TensorFlow", "_tf_fallback_dispatchers"):
        assert compat.function_named("tf.math.square") is tf.square


def test_kinds_of_operations_tell_whether_they_have_a_state(uses):
    with uses("TensorFlow", "op_def_registry.get"):
        stateful = [kind for kind in ("MatMul", "RandomUniform", "NoSuchKind") if compat.operation_keeps_state(kind)]
    assert stateful == ["RandomUniform", "NoSuchKind"], SEE.format("op_def_registry")


def test_outputs_of_operations_have_their_places_by_name(uses):
    graph = tf.Graph()
    with graph.as_default():
        nodes = [part[0].op.node_def for part in (tf.split(tf.zeros([4]), 2), tf.unique_with_counts([1]))]
    with uses("TensorFlow", "op_def_registry.get"):
        assert compat.output_offset(nodes[0], "output") == 0, SEE.format("op_def_registry")
        assert compat.output_offset(nodes[1], "count") == 2, SEE.format("op_def_registry")
    with pytest.raises(KeyError):
        compat.output_offset(nodes[0], "no such output")


@pytest.mark.parametrize("make", [tf.data.Dataset.from_tensors, tf.data.Dataset.from_tensor_slices])
def test_tensors_that_a_pipeline_holds_are_those_of_ragged_and_sparse_ones_too(make):
    ragged = tf.RaggedTensor.from_row_lengths([1.0, 2.0, 3.0, 4.0], [1, 3])
    sparse = tf.sparse.from_dense([[0.0, 5.0], [6.0, 0.0]])
    [splits, values, places, entries, shape, dense] = compat.dataset_tensors(make((ragged, sparse, [7.0, 8.0])))
    assert (splits.numpy().tolist(), values.numpy().tolist()) == ([0, 1, 4], [1, 2, 3, 4])
    assert (places.numpy().tolist(), entries.numpy().tolist()) == ([[0, 1], [1, 0]], [5, 6])
    assert shape.numpy().tolist() == [2, 2]
    assert dense.numpy().tolist() == [7, 8]


def test_a_pipeline_in_a_pipeline_holds_no_tensors_that_could_be_read():
    windows = tf.data.Dataset.from_tensors(tf.data.Dataset.range(3))
    assert compat.dataset_tensors(windows) == []
