"""What TensorFlow Serving's integration test asks of a server, and what it would ask of shapes: over real sockets."""

import contextlib

import grpc
import numpy as np
import pytest
from google.protobuf import text_format

from experiments_manager.protocol import messages, tensors

SERVICE = "/tensorflow.serving.PredictionService/"


@pytest.fixture(scope="module", params=["batching", "alone"])
def server(request, classics, running, saved_models, tmp_path_factory):
    """All the models, with and without batching: answers must be the same."""
    folder = tmp_path_factory.mktemp("classics")
    for name, path in classics.items():
        saved_models.publish(path, folder / name, 123)
    config = folder / "models.config"
    models = " ".join(f'config {{ name: "{name}" base_path: "{folder / name}" }}' for name in classics)
    config.write_text(f"model_config_list {{ {models} }}")
    flags = ["--enable_batching"] if request.param == "batching" else []
    with running.running_server([f"--model_config_file={config}", *flags]) as server:
        yield server


@pytest.fixture(scope="module")
def call(server):
    """Asks a method of the prediction service by gRPC."""
    with contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{server.grpc}")) as channel:

        def call(method, request, answer):
            return answer.FromString(channel.unary_unary(SERVICE + method)(request.SerializeToString(), timeout=60))

        yield call


@pytest.fixture
def predict(call):
    """Asks for a prediction by gRPC; gives the only output."""

    def predict(model, signature="", **inputs):
        request = messages.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for name, value in inputs.items():
            tensors.to_proto(value, request.inputs[name])
        [output] = call("Predict", request, messages.PredictResponse).outputs.values()
        return tensors.to_array(output)

    return predict


def about(kind, text, x=2.0):
    request = text_format.Parse(text, kind())
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(x)
    return request


def floats(*values, shape=(-1,)):
    return np.float32(values).reshape(shape)


@pytest.mark.parametrize("model", ["half_plus_two", "half_plus_two_of_tf2", "half_plus_three"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
def test_one_number_may_have_any_number_of_dimensions(predict, model, shape):
    plus = 3 if model == "half_plus_three" else 2
    answer = predict(model, x=floats(2, shape=shape))
    assert (answer.shape, answer.item()) == (shape, 1 + plus)


@pytest.mark.parametrize("model", ["half_plus_two", "half_plus_two_of_tf2", "half_plus_three"])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
def test_numbers_are_computed_in_the_shape_in_which_they_come(predict, model, shape):
    plus = 3 if model == "half_plus_three" else 2
    answer = predict(model, x=floats(1, 2, 5, shape=shape))
    assert answer.tolist() == (np.float32([1, 2, 5]).reshape(shape) / 2 + plus).tolist()


@pytest.mark.parametrize("shape", [(0,), (0, 1), (3, 0)])
def test_no_numbers_are_computed_too(predict, shape):
    assert predict("half_plus_two", x=np.zeros(shape, np.float32)).shape == shape


@pytest.mark.parametrize("model", ["half_plus_two", "half_plus_two_of_tf2", "half_plus_three"])
def test_the_first_request_of_the_documentation_is_answered(server, model):
    numbers = [3.5, 4.0, 5.5] if model == "half_plus_three" else [2.5, 3.0, 4.5]
    path = f"/v1/models/{model}:predict"
    assert server.post(path, {"instances": [1.0, 2.0, 5.0]}).json == {"predictions": numbers}
    assert server.post(path, {"inputs": [1.0, 2.0, 5.0]}).json == {"outputs": numbers}
    assert server.post(path, {"inputs": 2.0}).json == {"outputs": numbers[1]}
    rows = {"instances": [{"x": [1.0]}, {"x": [2.0]}, {"x": [5.0]}]}
    assert server.post(path, rows).json == {"predictions": [[number] for number in numbers]}
    assert server.post(path, {"inputs": []}).json == {"outputs": []}


@pytest.mark.parametrize("model", ["half_plus_two", "half_plus_two_of_tf2"])
def test_examples_are_classified_and_regressed(call, server, model):
    text = f'model_spec {{ name: "{model}" signature_name: "%s_x_to_y" }}'
    classified = call(
        "Classify", about(messages.ClassificationRequest, text % "classify"), messages.ClassificationResponse
    )
    assert [[found.score for found in one.classes] for one in classified.result.classifications] == [[3]]
    regressed = call("Regress", about(messages.RegressionRequest, text % "regress"), messages.RegressionResponse)
    assert [one.value for one in regressed.result.regressions] == [3]
    assert (regressed.model_spec.version.value, regressed.model_spec.signature_name) == (123, "regress_x_to_y")
    asked = {"signature_name": "classify_x_to_y", "examples": [{"x": 2.0}, {"x": 4.0}]}
    assert server.post(f"/v1/models/{model}:classify", asked).json == {"results": [[["", 3.0]], [["", 4.0]]]}
    asked["signature_name"] = "regress_x_to_y"
    assert server.post(f"/v1/models/{model}:regress", asked).json == {"results": [3.0, 4.0]}


def test_examples_go_where_the_graph_takes_strings_whatever_the_signature_says(call, server):
    text = 'model_spec { name: "half_plus_three" signature_name: "tensorflow/serving/regress" }'
    regressed = call("Regress", about(messages.RegressionRequest, text), messages.RegressionResponse)
    assert [one.value for one in regressed.result.regressions] == [4]
    asked = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 2.0}]}
    assert server.post("/v1/models/half_plus_three:regress", asked).json == {"results": [4.0]}


def test_examples_for_an_input_of_numbers_are_refused(call):
    request = about(
        messages.RegressionRequest, 'model_spec { name: "half_plus_two" signature_name: "regress_x2_to_y3" }'
    )
    with pytest.raises(grpc.RpcError, match="to be float but string is provided") as refused:
        call("Regress", request, messages.RegressionResponse)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("model", ["half_plus_two", "half_plus_two_of_tf2"])
def test_several_inferences_need_not_share_an_input_tensor(call, model):
    tasks = "".join(
        f'tasks {{ model_spec {{ name: "{model}" signature_name: "{kind}_x_to_y" }}'
        f' method_name: "tensorflow/serving/{kind}" }}'
        for kind in ("regress", "classify")
    )
    values, classes = call(
        "MultiInference", about(messages.MultiInferenceRequest, tasks), messages.MultiInferenceResponse
    ).results
    assert values.regression_result.regressions[0].value == 3
    assert classes.classification_result.classifications[0].classes[0].score == 3
    assert (values.model_spec.signature_name, classes.model_spec.version.value) == ("regress_x_to_y", 123)


def test_what_tensorflow_cannot_compute_is_an_invalid_argument(call, predict, server):
    with pytest.raises(grpc.RpcError) as refused:
        predict("rows", x=floats(1, 2, 3))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    answer = server.post("/v1/models/rows:predict", {"instances": [1.0, 2.0, 3.0]})
    assert answer.status == 400
    assert refused.value.details().splitlines()[0] == answer.error.splitlines()[0]
    assert predict("rows", x=floats(1, 2, 3, shape=(1, 3))).tolist() == [6]


def test_inputs_of_different_lengths_are_computed_where_tensorflow_can(predict, server):
    assert predict("sum", a=floats(1, 2), b=floats(10)).tolist() == [11, 12]
    assert server.post("/v1/models/sum:predict", {"inputs": {"a": [1, 2], "b": 10}}).json == {"outputs": [11.0, 12.0]}
    with pytest.raises(grpc.RpcError) as refused:
        predict("sum", a=floats(1, 2), b=floats(1, 2, 3))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_counter_counts_without_inputs_and_with_a_scalar(predict):
    assert predict("counter", "reset_counter").item() == 0
    assert [predict("counter", "incr_counter").item() for _ in range(3)] == [1, 2, 3]
    assert predict("counter", "incr_counter_by", delta=np.float32(2.5)).item() == 5.5
    assert predict("counter", "get_counter").item() == 5.5
    with pytest.raises(grpc.RpcError, match="input size does not match signature"):
        predict("counter", "incr_counter_by")


@pytest.fixture
def send_all(server):
    """Sends predictions for all of these arrays at once, and waits for none; gives the calls."""
    with contextlib.closing(grpc.insecure_channel(f"127.0.0.1:{server.grpc}")) as channel:
        ask = channel.unary_unary(SERVICE + "Predict")

        def send_all(model, arrays):
            calls = []
            for array in arrays:
                request = messages.PredictRequest()
                request.model_spec.name = model
                tensors.to_proto(array, request.inputs["x"])
                calls.append(ask.future(request.SerializeToString(), timeout=60))
            return calls

        yield send_all


def output_of(call):
    [output] = messages.PredictResponse.FromString(call.result()).outputs.values()
    return tensors.to_array(output)


def test_vectors_of_different_requests_are_not_put_together_where_each_may_be_one_sample(send_all):
    calls = send_all("shares", [floats(number, 3 * number) for number in range(1, 61)])
    assert [output_of(call).tolist() for call in calls] == [[0.25, 0.75]] * 60


def test_requests_that_fit_and_others_are_answered_at_the_same_time(send_all):
    """What does not fit the signature runs beside the batches of what does, and spoils none of them."""
    shapes = [(1, 3), (3,), (3, 1), (1, 3)]
    calls = send_all("rows", [floats(*[number] * 3, shape=shapes[number % 4]) for number in range(60)])
    for number, call in enumerate(calls):
        if shapes[number % 4] == (3,):
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        else:
            assert output_of(call).tolist() == ([number] * 3 if number % 4 == 2 else [3 * number])
