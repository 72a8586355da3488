"""TensorFlow Lite models, by LiteRT; compared with TensorFlow."""

import threading
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import numpy as np
import pytest
from google.protobuf import text_format

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.models.lite import LiteModel, bare_names
from experiments_manager.serving.models.signatures import PREDICT

pytest.importorskip("ai_edge_litert")

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def lite_file(saved_models, tmp_path_factory, tensorflow):
    """The linear model, `y = 2 x + 1`, with its two signatures."""
    folder = tmp_path_factory.mktemp("lite") / "1"
    folder.mkdir()
    converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(saved_models.linear))
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder / "model.tflite"


@pytest.fixture(scope="module")
def without_signature(tmp_path_factory, tensorflow):
    """One sample in and out, as converters write models of any number of samples that have no signature."""
    tf = tensorflow
    function = tf.function(lambda x: tf.nn.relu(x) * 3.0, input_signature=[tf.TensorSpec([1, 4], tf.float32, name="x")])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    file = tmp_path_factory.mktemp("plain") / "model.tflite"
    file.write_bytes(converter.convert())
    return file


def run(model, signature="serving_default", **inputs):
    chosen = model.signatures[signature]
    return model.run(chosen, chosen.check_inputs(inputs), tuple(chosen.outputs))


def test_it_gives_what_tensorflow_gives_for_any_number_of_samples(lite_file):
    model = LiteModel.load(lite_file.parent)
    for count in (1, 5, 2):
        np.testing.assert_allclose(run(model, x=X[:count])["y"], 2 * X[:count] + 1, rtol=1e-6)


def test_its_signatures_are_those_of_the_saved_model(lite_file):
    model = LiteModel.load(lite_file)
    assert set(model.signatures) == {"serving_default", "twice"}
    found = run(model, "twice", x=X)
    np.testing.assert_allclose(found["total"], X.sum(axis=1), rtol=1e-5)
    spec = model.signatures["serving_default"].inputs["x"]
    assert (spec.dtype, spec.shape, spec.number) == ("float", (None, 3), 1)
    assert model.signatures["serving_default"].batchable


def test_a_file_without_signatures_has_a_default_one_that_takes_any_number_of_samples(without_signature):
    model = LiteModel.load(without_signature)
    [signature] = model.signatures.values()
    [name] = signature.inputs
    assert signature.inputs[name].shape == (None, 4)
    x = np.float32([[1, -2, 3, 4], [5, 6, -7, 8]])
    [output] = run(model, **{name: x}).values()
    np.testing.assert_array_equal(output, np.maximum(x, 0) * 3)


def test_without_signatures_inputs_have_the_names_of_their_tensors_as_in_tensorflow_serving(lite_file, tmp_path):
    from tensorflow.lite.tools import flatbuffer_utils

    content = flatbuffer_utils.convert_bytearray_to_object(bytearray(lite_file.read_bytes()))
    content.signatureDefs, content.subgraphs = [], content.subgraphs[:1]
    (tmp_path / "model.tflite").write_bytes(flatbuffer_utils.convert_object_to_bytearray(content))
    model = LiteModel.load(tmp_path)
    [output] = run(model, serving_default_x=X).values()
    np.testing.assert_allclose(output, 2 * X + 1, rtol=1e-6)


@pytest.fixture
def described(lite_file, tmp_path):
    """Writes the linear model as older converters do: named tensors, and signatures in the metadata, if any."""
    from flatbuffers import flexbuffers
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    def describe(signatures=None, packed=None, names=("a", "b")):
        content = flatbuffer_utils.convert_bytearray_to_object(bytearray(lite_file.read_bytes()))
        content.signatureDefs, content.subgraphs = [], content.subgraphs[:1]
        [graph] = content.subgraphs
        for index, name in zip([*graph.inputs, *graph.outputs], names, strict=True):
            graph.tensors[index].name = name
        if signatures is not None:
            builder = flexbuffers.Builder()
            with builder.Map():
                for key, text in signatures.items():
                    definition = text_format.Parse(text, messages.SignatureDef())
                    builder.Key(key)
                    builder.Blob(definition.SerializeToString())
            packed = bytes(builder.Finish())
        if packed is not None:
            entry, buffer = schema.MetadataT(), schema.BufferT()
            entry.name, entry.buffer = "signature_defs_metadata", len(content.buffers)
            buffer.data = np.frombuffer(packed, np.uint8)
            content.buffers.append(buffer)
            content.metadata = [*(content.metadata or []), entry]
        (tmp_path / "model.tflite").write_bytes(flatbuffer_utils.convert_object_to_bytearray(content))
        return tmp_path / "model.tflite"

    return describe


DESCRIBED = """
    inputs {{ key: "x" value {{ name: "{}" dtype: DT_FLOAT }} }}
    outputs {{ key: "y" value {{ name: "b" dtype: DT_FLOAT }} }}
    method_name: "tensorflow/serving/predict"
"""


def test_signatures_in_the_metadata_say_how_inputs_and_outputs_are_called(described):
    model = LiteModel.load(described({"serving_default": DESCRIBED.format("a:0"), "other": DESCRIBED.format("a")}))
    assert sorted(model.signatures) == ["other", "serving_default"]
    for name in model.signatures:
        np.testing.assert_allclose(run(model, name, x=X)["y"], 2 * X + 1, rtol=1e-6)
    told = messages.SignatureDef.FromString(model.definitions["serving_default"])
    assert (told.inputs["x"].name, told.outputs["y"].name, told.method_name) == ("a", "b", PREDICT)


def test_metadata_counts_for_more_than_what_the_converter_wrote(lite_file, described):
    from tensorflow.lite.tools import flatbuffer_utils

    content = flatbuffer_utils.read_model(str(described({"serving_default": DESCRIBED.format("a")})))
    converted = flatbuffer_utils.read_model(str(lite_file))
    content.signatureDefs = [one for one in converted.signatureDefs if one.subgraphIndex == 0]
    content.signatureDefs[0].inputs[0].name = b"z"
    flatbuffer_utils.write_model(content, str(lite_file.with_name("both.tflite")))
    assert list(LiteModel.load(lite_file.with_name("both.tflite")).signatures["serving_default"].inputs) == ["x"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"signatures": {"serving_default": DESCRIBED.format("c:0")}},
            "Signature input x references an unknown tensor: Unknown tensor 'c:0'",
        ),
        ({"packed": b"nonsense"}, "Invalid SignatureDefs found in TfLite model"),
    ],
)
def test_metadata_that_makes_no_sense_keeps_a_file_from_being_loaded(described, arguments, message):
    with pytest.raises(ServingError, match=message):
        LiteModel.load(described(**arguments))


@pytest.mark.parametrize(("names", "given"), [(("x:0", "y:0"), "x"), (("x", "y"), "x"), (("n/x:3", "y"), "n/x")])
def test_without_any_signature_names_are_those_of_the_tensors_without_their_number(described, names, given):
    model = LiteModel.load(described(names=names))
    [output] = run(model, **{given: X}).values()
    np.testing.assert_allclose(output, 2 * X + 1, rtol=1e-6)
    assert list(model.signatures["serving_default"].outputs) == ["y"]
    told = messages.SignatureDef.FromString(model.definitions["serving_default"])
    assert told.inputs[given].name == names[0]


def test_tensors_whose_names_differ_by_their_number_alone_keep_it():
    assert bare_names(["a:0", "a:1", "b:0"]) == {"a:0": "a:0", "a:1": "a:1", "b": "b:0"}


def test_requests_at_the_same_time_do_not_mix(lite_file):
    model = LiteModel.load(lite_file, copies=3)
    wrong = []

    def ask(scale):
        for _ in range(50):
            if not np.allclose(run(model, x=X * scale)["y"], 2 * X * scale + 1, rtol=1e-5):
                wrong.append(scale)

    threads = [threading.Thread(target=ask, args=(scale,)) for scale in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_inputs_of_another_type_are_refused(lite_file):
    with pytest.raises(ServingError, match="to be float but double"):
        run(LiteModel.load(lite_file), x=X.astype(np.float64))


@pytest.mark.parametrize("shape", [(), (3,), (15,), (5, 3, 1), (0, 3), (15, 1)])
def test_shapes_that_the_signature_does_not_have_are_computed_where_litert_can(lite_file, shape):
    model = LiteModel.load(lite_file, copies=1)
    x = np.resize(X, shape)
    np.testing.assert_allclose(run(model, x=x)["y"], 2 * x + 1, rtol=1e-6)
    np.testing.assert_allclose(run(model, x=X)["y"], 2 * X + 1, rtol=1e-6)


def test_a_shape_that_litert_refuses_leaves_the_interpreter_as_it_was(lite_file):
    model = LiteModel.load(lite_file, copies=1)
    with pytest.raises(ServingError, match="The model cannot run on these inputs") as refused:
        run(model, "twice", x=np.zeros((2, 3, 4, 5, 6, 7, 8, 9, 2), np.float32))
    assert refused.value.code == Code.INVALID_ARGUMENT
    np.testing.assert_allclose(run(model, "twice", x=X)["total"], X.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"TFL3" * 100])
def test_a_damaged_file_says_so(tmp_path, content):
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(ServingError, match="model.tflite failed"):
        LiteModel.load(tmp_path)


def test_the_server_takes_it_where_it_is_preferred_or_alone(lite_file, saved_models, running, tmp_path):
    base = tmp_path / "both"
    saved_models.publish(saved_models.steeper, base, 1)  # `y = 5 x + 1`, to tell which one answers
    (base / "1" / "model.tflite").write_bytes(lite_file.read_bytes())
    (tmp_path / "alone" / "7").mkdir(parents=True)
    (tmp_path / "alone" / "7" / "model.tflite").write_bytes(lite_file.read_bytes())
    (tmp_path / "alone" / "7" / "saved_model.pb.before").touch()
    config = tmp_path / "models"
    models = [f'config {{ name: "{name}" base_path: "{tmp_path / name}" }}' for name in ("both", "alone")]
    config.write_text(f"model_config_list {{ {' '.join(models)} }}")
    ask = {"instances": [[1, 1, 1]]}
    with running.running_server([f"--model_config_file={config}"]) as server:
        assert server.post("/v1/models/both:predict", ask).json == {"predictions": [[6.0, 6.0, 6.0]]}
        assert server.post("/v1/models/alone:predict", ask).json == {"predictions": [[3.0, 3.0, 3.0]]}
    with running.running_server([f"--model_config_file={config}", "--prefer_tflite_model"]) as server:
        assert server.post("/v1/models/both:predict", ask).json == {"predictions": [[3.0, 3.0, 3.0]]}
        shape = server.get("/v1/models/both/metadata").json["metadata"]["signature_def"]["signature_def"]
        assert shape["serving_default"]["inputs"]["x"]["dtype"] == "DT_FLOAT"


def test_closing_waits_for_a_call_that_is_running_and_later_calls_are_refused(lite_file):
    model = LiteModel.load(lite_file, copies=1)
    running, go_on = threading.Event(), threading.Event()

    def call():
        with model._free_interpreter():
            running.set()
            assert go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        calling = pool.submit(call)
        assert running.wait(10)
        closing = pool.submit(model.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        go_on.set()
        calling.result(10)
        closing.result(10)
        with pytest.raises(ServingError, match="is not served any more"):
            pool.submit(run, model, x=X).result(10)
