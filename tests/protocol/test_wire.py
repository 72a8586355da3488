import numpy as np
import pytest
from google.protobuf.message import DecodeError

from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.tensors import answering_spec, write_predict_response
from experiments_manager.protocol.wire import LARGE, read_predict_request

GENERATOR = np.random.default_rng(0)
BIG = GENERATOR.random((3, LARGE // 8), np.float32)


def request_of(typed=False, **inputs):
    request = messages.raw.PredictRequest(output_filter=["y"])
    request.model_spec.name = "model"
    request.model_spec.version.value = 7
    for name, array in inputs.items():
        tensors.to_proto(array, request.inputs[name], typed=typed)
    return request


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8, np.float16])
def test_large_inputs_are_read_as_the_parser_reads_them(typed, dtype):
    big = (100 * GENERATOR.random((3, LARGE))).astype(dtype)
    data = request_of(typed, big=big, small=np.arange(3, dtype=np.int64)).SerializeToString()
    request, arrays = read_predict_request(data)
    assert request.model_spec.name == "model"
    assert (request.model_spec.version.value, list(request.output_filter)) == (7, ["y"])
    np.testing.assert_array_equal(tensors.to_array(request.inputs["small"]), [0, 1, 2])
    found = arrays["big"] if "big" in arrays else tensors.to_array(request.inputs["big"])
    assert found.dtype == big.dtype
    np.testing.assert_array_equal(found, big)


def test_the_bytes_of_a_large_input_are_not_copied():
    data = request_of(big=BIG).SerializeToString()
    request, arrays = read_predict_request(data)
    assert np.shares_memory(arrays["big"], np.frombuffer(data, np.uint8))
    assert request.ByteSize() < 200


def test_many_small_values_are_left_to_the_parser_which_is_quicker():
    words = np.full(LARGE, b"ab", object)
    request, arrays = read_predict_request(request_of(big=BIG, words=words).SerializeToString())
    assert arrays == {}
    np.testing.assert_array_equal(tensors.to_array(request.inputs["words"]), words)
    np.testing.assert_array_equal(tensors.to_array(request.inputs["big"]), BIG)


def changed(change):
    request = request_of(big=BIG)
    change(request.inputs["big"])
    return request.SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        changed(lambda tensor: setattr(tensor.tensor_shape.dim[0], "size", 2)),
        changed(lambda tensor: setattr(tensor.tensor_shape.dim[0], "size", -3)),
        changed(lambda tensor: setattr(tensor, "dtype", 7)),
        changed(lambda tensor: setattr(tensor.tensor_shape, "unknown_rank", True)),
        changed(lambda tensor: tensor.float_val.append(b"\x00" * 8)),
        request_of(big=BIG).SerializeToString() * 2,
    ],
)
def test_what_is_unusual_is_left_to_the_parser(data):
    request, arrays = read_predict_request(data)
    assert arrays == {}
    assert request == messages.raw.PredictRequest.FromString(data)


@pytest.mark.parametrize("end", [LARGE, -1, -5, LARGE + 17])
def test_a_message_that_is_cut_off_is_none(end):
    with pytest.raises(DecodeError):
        read_predict_request(request_of(big=BIG).SerializeToString()[:end])


OUTPUTS = [
    *[BIG.astype(dtype) for dtype in (np.float32, np.float64, np.int32, np.uint8, np.float16, np.complex64, bool)],
    BIG[:, ::2],
    BIG.T,
    BIG.astype(">f4"),
    np.float32(3),
    np.zeros((0, 4), np.float32),
    np.zeros((2, 1), np.float64),
    np.array([b"a", b""], object),
]


@pytest.mark.parametrize("content", [False, True], ids=["fields", "content"])
@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: f"{output.dtype}{list(output.shape)}")
def test_outputs_are_written_as_the_serialiser_writes_them(output, content):
    expected = messages.PredictResponse()
    expected.model_spec.name, expected.model_spec.signature_name = "model", "serving_default"
    expected.model_spec.version.value = 7
    tensors.to_proto(output, expected.outputs["output"], typed=not content)
    tensors.to_proto(np.arange(3), expected.outputs["other"], typed=not content)
    spec = answering_spec("model", 7, "serving_default")
    data = write_predict_response(spec, {"output": output, "other": np.arange(3)}, content=content)
    assert messages.PredictResponse.FromString(data) == expected


def test_an_output_that_no_message_can_hold_is_refused():
    with pytest.raises(tensors.TensorError, match="TensorFlow has no tensors of dtype datetime64"):
        write_predict_response(b"", {"when": np.array(["2026-01-01"], "datetime64[D]")})
