import asyncio
import re

import numpy as np
import pytest
from google.protobuf import text_format

from experiments_manager.protocol import messages, tensors
from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.api.grpc_server import GrpcOptions, GrpcServer
from experiments_manager.serving.api.metrics import Admission, Admitted, Metrics

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


@pytest.fixture(scope="module")
def base_paths(saved_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base_paths")
    saved_models.publish(saved_models.linear, folder / "linear", 1)
    saved_models.publish(saved_models.steeper, folder / "linear", 2)
    saved_models.publish(saved_models.words, folder / "words", 1)
    saved_models.publish(saved_models.mixed, folder / "mixed", 3)
    saved_models.publish(saved_models.examples, folder / "examples", 1)
    return folder


@pytest.fixture(scope="module")
def manager(base_paths):
    from experiments_manager.serving.models.loader import LoadingOptions
    from experiments_manager.serving.models.manager import ModelManager
    from experiments_manager.serving.models.saved_model import LoadedModel
    from experiments_manager.serving.models.version_policy import ModelConfig, VersionPolicy

    configs = [
        ModelConfig(path.name, path, VersionPolicy("all"), {"stable": 1} if path.name == "linear" else {})
        for path in sorted(base_paths.iterdir())
    ]
    manager = ModelManager(configs, LoadedModel.load, options=LoadingOptions(poll_seconds=0))
    manager.start()
    assert manager.wait_until_ready(120)
    manager.reload(configs, 120)
    yield manager
    manager.close()


async def predicted(handlers, request):
    """Asks Predict as gRPC does, in bytes."""
    server = GrpcServer(handlers, GrpcOptions(port=None))
    answer = await server.predict(request.SerializeToString(), Admitted(handlers.admission, "GRPC"))
    return messages.PredictResponse.FromString(answer)


@pytest.fixture
def ask(manager, run_async):
    """Asks one method of the services, with or without batching; all must answer alike."""
    from experiments_manager.serving.api.services import Handlers
    from experiments_manager.serving.batching.scheduler import BatchingOptions, Scheduler

    async def answer(method, request, options):
        scheduler = Scheduler(options)
        handlers = Handlers(manager, scheduler)
        try:
            if method == "predict":
                return await predicted(handlers, request)
            return await getattr(handlers, method)(request)
        finally:
            scheduler.close()

    def ask(method, request):
        answers = []
        for options in (None, BatchingOptions()):
            try:
                answers.append(run_async(answer(method, request, options)))
            except ServingError as error:
                answers.append((error.code, error.message))
        assert answers[0] == answers[1]
        if isinstance(answers[0], tuple):
            raise ServingError(*answers[0])
        return answers[0]

    return ask


@pytest.fixture
def refused(ask):
    """Asks for something that must be refused; gives code and message."""

    def refused(method, request):
        with pytest.raises(ServingError) as caught:
            ask(method, request)
        return caught.value.code, caught.value.message

    return refused


def predict_request(model="linear", *, signature="", version=None, label=None, outputs=(), kind=messages, **inputs):
    request = kind.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    request.output_filter.extend(outputs)
    for name, array in inputs.items():
        tensors.to_proto(array, request.inputs[name])
    return request


def example_request(kind, text, examples=((1, 2), (3, 4))):
    request = text_format.Parse(text, kind())
    for values in examples:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.extend(values)
    return request


@pytest.mark.parametrize("kind", [messages, messages.raw])
def test_predict_answers_with_typed_fields_and_says_who_answered(ask, kind):
    assert ask("predict", predict_request(x=X, kind=kind)) == text_format.Parse(
        """
        model_spec { name: "linear" version { value: 2 } signature_name: "serving_default" }
        outputs { key: "y" value {
            dtype: DT_FLOAT tensor_shape { dim { size: 2 } dim { size: 3 } }
            float_val: [6, 11, 16, 21, 26, 31]
        } }
        """,
        messages.PredictResponse(),
    )


@pytest.mark.parametrize(("which", "scale"), [({"version": 1}, 2), ({"version": 2}, 5), ({"label": "stable"}, 2)])
def test_predict_takes_the_version_or_label_that_is_named(ask, which, scale):
    response = ask("predict", predict_request(x=X, **which))
    np.testing.assert_array_equal(tensors.to_array(response.outputs["y"]), scale * X + 1)


def test_predict_gives_the_outputs_of_the_signature_that_is_named_or_those_asked_for(ask):
    both = ask("predict", predict_request(x=X, signature="twice"))
    assert (sorted(both.outputs), both.model_spec.signature_name) == (["total", "y"], "twice")
    one = ask("predict", predict_request(x=X, signature="twice", outputs=["total"]))
    assert {name: tensors.to_array(value).tolist() for name, value in one.outputs.items()} == {"total": [6, 15]}


def test_predict_takes_strings_bytes_and_flags(ask, saved_models):
    response = ask("predict", predict_request("words", word=saved_models.as_strings("one", "ten")))
    assert list(response.outputs["number"].int64_val) == [1, -1]
    assert list(response.outputs["loud"].string_val) == [b"one!", b"ten!"]
    mixed = ask("predict", predict_request("mixed", small=np.array([3, 4], np.uint8), flag=np.array([True, False])))
    assert tensors.to_array(mixed.outputs["total"]).item() == 7
    assert list(mixed.outputs["table"].int_val) == [3, 0]


@pytest.mark.parametrize(
    ("request_of", "code", "message"),
    [
        (lambda: messages.PredictRequest(), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (lambda: predict_request("", x=X), Code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (lambda: predict_request("no", x=X), Code.NOT_FOUND, "Servable not found for request: Latest(no)"),
        (
            lambda: predict_request(x=X, version=3),
            Code.NOT_FOUND,
            "Servable not found for request: Specific(linear, 3)",
        ),
        (
            lambda: predict_request(x=X, label="no"),
            Code.INVALID_ARGUMENT,
            "Unrecognized servable version label: no",
        ),
        (
            lambda: predict_request(x=X, signature="no"),
            Code.FAILED_PRECONDITION,
            'Serving signature key "no" not found.',
        ),
        (
            lambda: predict_request(),
            Code.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
        ),
        (
            lambda: predict_request(x=X, outputs=["no"]),
            Code.INVALID_ARGUMENT,
            "output tensor alias not found in signature: no Outputs expected to be in the set {y}.",
        ),
        (
            lambda: predict_request(x=X.astype(np.int32)),
            Code.INVALID_ARGUMENT,
            "Expects arg[0] to be float but int32 is provided: input x (serving_default_x:0)",
        ),
    ],
)
def test_predict_refuses_in_the_words_of_tensorflow_serving(refused, request_of, code, message):
    assert refused("predict", request_of()) == (code, message)


def test_a_tensor_that_is_none_is_refused_by_its_name(refused):
    request = predict_request(x=X)
    request.inputs["x"].tensor_shape.dim[0].size = -7
    code, message = refused("predict", request)
    assert code == Code.INVALID_ARGUMENT
    assert message.startswith("tensor parsing error: x: ")


def test_what_the_model_refuses_is_handed_on(refused, saved_models):
    code, message = refused("predict", predict_request("words", word=saved_models.as_strings("bad")))
    assert code == Code.INVALID_ARGUMENT
    assert "a bad word" in message


def test_classify_gives_labels_and_scores_of_each_example(ask):
    request = example_request(
        messages.ClassificationRequest, 'model_spec { name: "examples" signature_name: "classes" }'
    )
    response = ask("classify", request)
    assert response == text_format.Parse(
        """
        result {
            classifications { classes { label: "first" score: 1 } classes { label: "second" score: 4 } }
            classifications { classes { label: "first" score: 3 } classes { label: "second" score: 8 } }
        }
        model_spec { name: "examples" version { value: 1 } signature_name: "classes" }
        """,
        messages.ClassificationResponse(),
    )


def test_regress_gives_a_value_for_each_example(ask):
    request = example_request(messages.RegressionRequest, 'model_spec { name: "examples" signature_name: "value" }')
    response = ask("regress", request)
    assert [entry.value for entry in response.result.regressions] == [5, 11]
    assert response.model_spec.signature_name == "value"


def test_the_context_is_merged_into_each_example(ask):
    request = text_format.Parse(
        """
        model_spec { name: "examples" signature_name: "value" }
        input { example_list_with_context {
            examples {} examples {}
            context { features { feature { key: "x" value { float_list { value: [1, 1] } } } } }
        } }
        """,
        messages.RegressionRequest(),
    )
    assert [entry.value for entry in ask("regress", request).result.regressions] == [3, 3]


TASKS = """
    tasks {{ model_spec {{ name: "examples" signature_name: "classes" }} method_name: "tensorflow/serving/{first}" }}
    tasks {{ model_spec {{ name: "{other}" signature_name: "{signature}" }} method_name: "tensorflow/serving/regress" }}
"""


def several(first="classify", other="examples", signature="value"):
    text = TASKS.format(first=first, other=other, signature=signature)
    return example_request(messages.MultiInferenceRequest, text)


def reload_request(*models):
    listed = " ".join(f"config {{ {model} }}" for model in models)
    return text_format.Parse(f"config {{ model_config_list {{ {listed} }} }}", messages.ReloadConfigRequest())


def test_several_inferences_share_one_request(ask):
    classes, values = ask("multi_inference", several()).results
    assert classes.classification_result.classifications[0].classes[1].score == 4
    assert [entry.value for entry in values.regression_result.regressions] == [5, 11]
    assert (classes.model_spec.signature_name, values.model_spec.signature_name) == ("classes", "value")


@pytest.mark.parametrize(
    ("method", "request_of", "code", "message"),
    [
        (
            "classify",
            lambda: example_request(messages.ClassificationRequest, 'model_spec { name: "examples" }'),
            Code.FAILED_PRECONDITION,
            "^No classification inputs found in SignatureDef: ",
        ),
        (
            "classify",
            lambda: example_request(
                messages.ClassificationRequest, 'model_spec { name: "examples" signature_name: "classes" }', ()
            ),
            Code.INVALID_ARGUMENT,
            "^Input is empty.$",
        ),
        (
            "classify",
            lambda: example_request(
                messages.ClassificationRequest, 'model_spec { name: "examples" signature_name: "no" }'
            ),
            Code.INVALID_ARGUMENT,
            "^No signature was found with the name: no$",
        ),
        (
            "regress",
            lambda: example_request(messages.RegressionRequest, 'model_spec { name: "linear" }'),
            Code.FAILED_PRECONDITION,
            "^No regression inputs found in SignatureDef: ",
        ),
        ("multi_inference", lambda: several("predict"), Code.UNIMPLEMENTED, "^Unsupported signature method_name: "),
        (
            "multi_inference",
            lambda: several(signature="no"),
            Code.INVALID_ARGUMENT,
            "^Requested signature not found in model graph: no$",
        ),
        (
            "multi_inference",
            lambda: several("regress"),  # two outputs and no input of the name that it must have
            Code.INVALID_ARGUMENT,
            "^Expected one output Tensor.$",
        ),
        ("multi_inference", lambda: several(other="linear"), Code.INVALID_ARGUMENT, "must access the same model name"),
        (
            "multi_inference",
            lambda: several(signature="classes"),
            Code.INVALID_ARGUMENT,
            "^Duplicate evaluation of signature: classes$",
        ),
        (
            "multi_inference",
            messages.MultiInferenceRequest,
            Code.INVALID_ARGUMENT,
            "^ModelSpec has no name specified.$",
        ),
        (
            "get_model_metadata",
            lambda: text_format.Parse('model_spec { name: "linear" }', messages.GetModelMetadataRequest()),
            Code.INVALID_ARGUMENT,
            "^GetModelMetadataRequest must specify at least one metadata_field$",
        ),
        (
            "get_model_metadata",
            lambda: text_format.Parse('model_spec {} metadata_field: "all"', messages.GetModelMetadataRequest()),
            Code.INVALID_ARGUMENT,
            "^Metadata field all is not supported$",
        ),
        ("get_model_metadata", messages.GetModelMetadataRequest, Code.INVALID_ARGUMENT, "^Missing ModelSpec$"),
        (
            "get_model_status",
            lambda: text_format.Parse('model_spec { name: "no" }', messages.GetModelStatusRequest()),
            Code.NOT_FOUND,
            "^Could not find any versions of model no$",
        ),
        (
            "reload_config",
            lambda: reload_request('name: "m" base_path: "models/m" model_platform: "tensorflow"'),
            Code.INVALID_ARGUMENT,
            r"^Expected model m to have an absolute path or URI; got base_path\(\)=models/m$",
        ),
        (
            "reload_config",
            lambda: reload_request('name: "m" base_path: "/m" model_platform: "caffe"'),
            Code.INVALID_ARGUMENT,
            "^Model m requests unsupported platform caffe$",
        ),
        (
            "reload_config",
            lambda: reload_request('name: "m" base_path: "/m" model_platform: "tensorflow" model_type: TENSORFLOW'),
            Code.INVALID_ARGUMENT,
            "^Illegal setting both ModelServerConfig::model_type",
        ),
        (
            "reload_config",
            lambda: reload_request('name: "m" base_path: "/m" model_type: OTHER'),
            Code.INVALID_ARGUMENT,
            "^ModelServerConfig::model_type choice 2 not supported.$",
        ),
        (
            "reload_config",
            lambda: reload_request('name: "m" base_path: "/m"', 'name: "m" base_path: "/n"'),
            Code.INVALID_ARGUMENT,
            "^Illegal to list model m multiple times in config list$",
        ),
        ("reload_config", messages.ReloadConfigRequest, Code.INVALID_ARGUMENT, "^ServerModelConfig type not supported"),
    ],
)
def test_other_requests_are_refused_in_the_words_of_tensorflow_serving(refused, method, request_of, code, message):
    got, text = refused(method, request_of())
    assert re.search(message, text), text
    assert got == code


def test_metadata_holds_the_signatures_as_they_were_saved(ask, saved_models):
    from tensorflow.core.protobuf import saved_model_pb2

    request = text_format.Parse(
        'model_spec { name: "linear" version { value: 1 } } metadata_field: "signature_def"',
        messages.GetModelMetadataRequest(),
    )
    response = ask("get_model_metadata", request)
    assert (response.model_spec.name, response.model_spec.version.value) == ("linear", 1)
    found = messages.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    graph = saved_model_pb2.SavedModel.FromString((saved_models.linear / "saved_model.pb").read_bytes()).meta_graphs[0]
    assert sorted(found.signature_def) == ["__saved_model_init_op", "serving_default", "twice"]
    for name, signature in found.signature_def.items():
        assert type(graph.signature_def[name]).FromString(signature.SerializeToString()) == graph.signature_def[name]


def test_the_status_of_all_versions_or_of_one_is_told(ask):
    text = "model_version_status {{ version: {} state: AVAILABLE status {{}} }}"
    every = text_format.Parse('model_spec { name: "linear" }', messages.GetModelStatusRequest())
    expected = text_format.Parse(text.format(2) + text.format(1), messages.GetModelStatusResponse())
    assert ask("get_model_status", every) == expected
    one = text_format.Parse('model_spec { name: "linear" version { value: 1 } }', messages.GetModelStatusRequest())
    assert ask("get_model_status", one) == text_format.Parse(text.format(1), messages.GetModelStatusResponse())


def test_no_more_requests_are_answered_at_once_than_allowed(manager):
    admission = Admission(manager.registry, Metrics(), max_in_flight=1)
    with Admitted(admission, "GRPC") as first:
        first.begin()
        with (
            pytest.raises(ServingError, match="1 requests are being answered") as refused,
            Admitted(admission, "GRPC") as second,
        ):
            second.begin()
        assert refused.value.code is Code.RESOURCE_EXHAUSTED
        assert admission.in_flight == 1
    with Admitted(admission, "GRPC") as third:
        third.begin()
    assert admission.in_flight == 0


def test_a_reload_request_takes_the_policy_and_the_labels(base_paths, run_async):
    from experiments_manager.serving.api.services import Handlers
    from experiments_manager.serving.batching.scheduler import Scheduler
    from experiments_manager.serving.models.loader import LoadingOptions
    from experiments_manager.serving.models.manager import ModelManager
    from experiments_manager.serving.models.saved_model import LoadedModel

    manager = ModelManager([], LoadedModel.load, options=LoadingOptions(poll_seconds=0))
    manager.start()
    config = f"""
        config {{ model_config_list {{ config {{
            name: "both" base_path: "{base_paths / "linear"}" model_platform: "tensorflow"
            model_version_policy {{ specific {{ versions: [1, 2] }} }}
            version_labels {{ key: "stable" value: 1 }}
        }} }} }}
    """

    async def go():
        scheduler = Scheduler(None, threads=1)
        handlers = Handlers(manager, scheduler)
        try:
            await handlers.reload_config(text_format.Parse(config, messages.ReloadConfigRequest()))
            stable, newest = predict_request("both", x=X, label="stable"), predict_request("both", x=X)
            answers = await asyncio.gather(*[predicted(handlers, request) for request in (stable, newest)])
            return [answer.model_spec.version.value for answer in answers]
        finally:
            scheduler.close()

    try:
        assert run_async(go()) == [1, 2]
    finally:
        manager.close()
