"""Models like those that TensorFlow Serving tests itself with, made anew: `y = x / 2 + 2` and such, and a counter."""

FEATURES = ("x", "x2")


def save_half_plus_two(path):
    """TF 1: Predict over `x` [?,1]; Classify and Regress over Examples, and over the float tensor `x2`."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        parsed = _parsed(serialized)
        half = v1.get_variable("half", initializer=0.5)
        x, x2 = tf.identity(parsed["x"], "x"), tf.identity(parsed["x2"], "x2")
        y, y2, y3 = half * x + 2.0, half * x + 3.0, half * x2 + 3.0
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        examples = {"inputs": info(serialized)}
        signatures = {
            "serving_default": _signature({"x": info(x)}, {"y": info(y)}, "predict"),
            "regress_x_to_y": _signature(examples, {"outputs": info(y)}, "regress"),
            "regress_x_to_y2": _signature(examples, {"outputs": info(y2)}, "regress"),
            "regress_x2_to_y3": _signature({"inputs": info(x2)}, {"outputs": info(y3)}, "regress"),
            "classify_x_to_y": _signature(examples, {"scores": info(y)}, "classify"),
        }
        _write(session, path, signatures)
    return path


def save_half_plus_two_of_tf2(path):
    """TF 2: the same, where each signature has placeholders of its own, and Predict is over `x` [1]."""
    import tensorflow as tf

    module = tf.Module()
    module.half = tf.Variable(0.5)
    examples = [tf.TensorSpec([None], tf.string, name="inputs")]

    def over_examples(output, plus):
        return tf.function(lambda inputs: {output: module.half * _parsed(inputs)["x"] + plus}, input_signature=examples)

    module.predict = tf.function(lambda x: {"y": module.half * x + 2.0}, input_signature=[tf.TensorSpec([1])])
    module.regress = over_examples("outputs", 2.0)
    module.classify = over_examples("scores", 2.0)
    names = {"serving_default": "predict", "regress_x_to_y": "regress", "classify_x_to_y": "classify"}
    tf.saved_model.save(module, str(path), signatures={key: getattr(module, name) for key, name in names.items()})
    return path


def save_half_plus_three(path):
    """TF 1, converted from an older format: all shapes are `[]`, and Regress's Examples are called floats."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        serialized = v1.placeholder(tf.string, name="tf_example")
        x = tf.identity(_parsed(serialized)["x"], "x")
        y = v1.get_variable("half", initializer=0.5) * x + 3.0
        session.run(v1.global_variables_initializer())

        def info(tensor):
            described = v1.saved_model.build_tensor_info(tensor)
            described.dtype = tf.float32.as_datatype_enum
            described.tensor_shape.Clear()
            return described

        signatures = {
            "serving_default": _signature({"x": info(x)}, {"y": info(y)}, "predict"),
            "tensorflow/serving/regress": _signature({"inputs": info(serialized)}, {"outputs": info(y)}, "regress"),
        }
        _write(session, path, signatures)
    return path


def save_counter(path):
    """TF 1, with a variable that is no resource: signatures without inputs, and one with a scalar."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        counter = v1.get_variable("counter", initializer=0.0, use_resource=False)
        delta = v1.placeholder(tf.float32, name="delta")
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        outputs = {
            "get_counter": counter,
            "incr_counter": v1.assign_add(counter, 1.0),
            "incr_counter_by": v1.assign_add(counter, delta),
            "reset_counter": v1.assign(counter, 0.0),
        }
        signatures = {
            name: _signature(
                {"delta": info(delta)} if name.endswith("_by") else {}, {"output": info(output)}, "predict"
            )
            for name, output in outputs.items()
        }
        _write(session, path, signatures)
    return path


def save_rows(path):
    """TF 2: the total of each row of `x` [?,?], which a vector has none of."""
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec([None, None], tf.float32, name="x")]
    module.total = tf.function(lambda x: {"total": tf.reduce_sum(x, axis=1)}, input_signature=spec)
    tf.saved_model.save(module, str(path), signatures=module.total)
    return path


def save_shares(path):
    """TF 2: the share of each number in its vector, or in its row; the signature says nothing of ranks."""
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec(None, tf.float32, name="x")]
    module.share = tf.function(lambda x: {"share": x / tf.reduce_sum(x, axis=-1, keepdims=True)}, input_signature=spec)
    tf.saved_model.save(module, str(path), signatures=module.share)
    return path


def save_sum(path):
    """TF 2: `a + b` of any shapes that go together."""
    import tensorflow as tf

    module = tf.Module()
    spec = [tf.TensorSpec(None, tf.float32, name="a"), tf.TensorSpec(None, tf.float32, name="b")]
    module.sum = tf.function(lambda a, b: {"sum": a + b}, input_signature=spec)
    tf.saved_model.save(module, str(path), signatures=module.sum)
    return path


def _parsed(serialized):
    import tensorflow as tf

    features = {name: tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]) for name in FEATURES}
    return tf.compat.v1.parse_example(serialized, features)


def _signature(inputs, outputs, method):
    import tensorflow as tf

    return tf.compat.v1.saved_model.build_signature_def(inputs, outputs, f"tensorflow/serving/{method}")


def _write(session, path, signatures):
    import tensorflow as tf

    builder = tf.compat.v1.saved_model.Builder(str(path))
    builder.add_meta_graph_and_variables(session, ["serve"], signatures)
    builder.save()
