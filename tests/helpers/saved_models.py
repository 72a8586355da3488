"""Little SavedModels of every sort, for the tests of the server."""

import shutil

import numpy as np


def save_linear(path, scale=2.0):
    """TF 2: `y = scale * x + 1` for x [n, 3], and as the signature `twice` the double of it, with a second output."""
    import tensorflow as tf

    module = tf.Module()
    module.scale = tf.Variable(scale, dtype=tf.float32)
    spec = [tf.TensorSpec([None, 3], tf.float32, name="x")]
    module.once = tf.function(lambda x: {"y": module.scale * x + 1.0}, input_signature=spec)
    module.twice = tf.function(
        lambda x: {"y": 2.0 * (module.scale * x + 1.0), "total": tf.reduce_sum(x, axis=1)}, input_signature=spec
    )
    signatures = {name: getattr(module, name).get_concrete_function() for name in ("once", "twice")}
    tf.saved_model.save(
        module, str(path), signatures={"serving_default": signatures["once"], "twice": signatures["twice"]}
    )
    return path


def save_words(path):
    """TF 2, with a vocabulary file: the number of each word [n], and the word again with a `!`; fails for `bad`."""
    import tensorflow as tf

    vocabulary = path.parent / "vocabulary.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("zero\none\ntwo\n", encoding="utf-8")
    initializer = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(initializer, default_value=-1)

    def serve(word):
        with tf.control_dependencies([tf.debugging.assert_none_equal(word, "bad", message="a bad word")]):
            return {"number": module.table.lookup(word), "loud": word + "!"}

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec([None], tf.string, name="word")])
    tf.saved_model.save(module, str(path), signatures=module.serve.get_concrete_function())
    vocabulary.unlink()  # the SavedModel has a copy of its own
    return path


def save_mixed(path):
    """TF 2: inputs of several types; `total` has no samples, and `table` is of one size."""
    import tensorflow as tf

    module = tf.Module()

    def serve(small, flag):
        return {"total": tf.reduce_sum(small), "table": tf.where(flag, small, tf.zeros_like(small))}

    module.serve = tf.function(
        serve,
        input_signature=[tf.TensorSpec([2], tf.uint8, name="small"), tf.TensorSpec([2], tf.bool, name="flag")],
    )
    tf.saved_model.save(module, str(path), signatures=module.serve.get_concrete_function())
    return path


def save_examples(path):
    """TF 1: signatures for classification, regression and prediction over the same serialised examples of `x` [2]."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="examples")
        x = v1.parse_example(serialized, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]
        weights = v1.get_variable("weights", initializer=tf.constant([[1.0, 0.0], [0.0, 2.0]]), use_resource=False)
        scores = tf.matmul(x, weights)
        classes = tf.tile(tf.constant([["first", "second"]]), [tf.shape(x)[0], 1])
        value = tf.reduce_sum(scores, axis=1, keepdims=True)
        session.run(v1.global_variables_initializer())
        build, info = v1.saved_model.build_signature_def, v1.saved_model.build_tensor_info
        inputs = {"inputs": info(serialized)}
        signatures = {
            "serving_default": build({"x": info(x)}, {"scores": info(scores)}, "tensorflow/serving/predict"),
            "classes": build(inputs, {"classes": info(classes), "scores": info(scores)}, "tensorflow/serving/classify"),
            "value": build(inputs, {"outputs": info(value)}, "tensorflow/serving/regress"),
        }
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return path


def publish(source, base_path, version):
    """Copies a SavedModel to a version as the engine does: beside its place, then renamed."""
    base_path.mkdir(parents=True, exist_ok=True)
    stage = base_path / f".stage-{version}"
    shutil.copytree(source, stage)
    stage.rename(base_path / str(version))
    return base_path / str(version)


def as_strings(*words):
    """An array as the server has it for strings."""
    array = np.empty(len(words), object)
    array[:] = [word.encode() for word in words]
    return array
