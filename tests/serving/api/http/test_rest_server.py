"""TensorFlow Serving's REST API, asked over HTTP as its documentation says."""

import base64
import gc
import gzip
import json
import math
import random
import re
import threading
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from experiments_manager.protocol.status import ServingError
from experiments_manager.serving.api.http import rest_server
from experiments_manager.serving.api.json.requests import Document, read_examples, read_predict
from experiments_manager.serving.api.metrics import Admitted
from experiments_manager.serving.models.signatures import ModelRef, TensorSpec
from experiments_manager.serving.models.version_policy import State
from tests.helpers.waiting import wait_until

LINEAR = "/v1/models/linear"  # version 2 is `y = 5 x + 1`, version 1 `y = 2 x + 1`
WORDS = "/v1/models/words"


@pytest.fixture
def predict(model_server):
    def ask(model, body, status=200):
        answer = model_server.post(f"/v1/models/{model}:predict", body)
        assert answer.status == status, answer.text
        return answer

    return ask


# Predict


def test_rows_in_give_rows_out_from_the_newest_version(predict):
    assert predict("linear", {"instances": [[1, 2, 3], [0, 0, 0.5]]}).json == {
        "predictions": [[6.0, 11.0, 16.0], [1.0, 1.0, 3.5]]
    }


def test_columns_in_give_columns_out(predict):
    assert predict("linear", {"inputs": [[1, 2, 3]]}).json == {"outputs": [[6.0, 11.0, 16.0]]}
    assert predict("linear", {"inputs": {"x": [[1, 2, 3]]}}).json == {"outputs": [[6.0, 11.0, 16.0]]}


def test_rows_may_name_their_inputs(predict):
    assert predict("linear", {"instances": [{"x": [1, 2, 3]}]}).json == {"predictions": [[6.0, 11.0, 16.0]]}


def test_several_outputs_are_named(predict):
    asked = {"signature_name": "twice", "instances": [[1, 2, 3]]}
    assert predict("linear", asked).json == {"predictions": [{"y": [12.0, 22.0, 32.0], "total": 6.0}]}
    asked = {"signature_name": "twice", "inputs": [[1, 2, 3]]}
    assert predict("linear", asked).json == {"outputs": {"y": [[12.0, 22.0, 32.0]], "total": [6.0]}}


def test_a_version_or_a_label_is_asked_by_the_path(predict):
    asked = {"instances": [[1, 1, 1]]}
    assert predict("linear/versions/1", asked).json["predictions"] == [[3.0, 3.0, 3.0]]
    assert predict("linear/versions/2", asked).json["predictions"] == [[6.0, 6.0, 6.0]]
    assert predict("linear/labels/stable", asked).json["predictions"] == [[3.0, 3.0, 3.0]]


def test_a_request_is_answered_by_the_version_that_read_it(saved_models, running, tmp_path, monkeypatch):
    """Another version, with other inputs, takes over while a request is being read."""
    saved_models.publish(saved_models.linear, tmp_path / "m", 1)
    asked = {"instances": [[1, 1, 1]]}
    with running.running_server([f"--model_base_path={tmp_path / 'm'}", "--model_name=m"]) as server:
        manager, leased = server.server.manager, []
        lease = manager.lease

        def read_while_the_version_changes(document, specs):
            saved_models.publish(saved_models.words, tmp_path / "m", 2)
            wanted = (2, State.AVAILABLE)
            wait_until(lambda: any((one.version, one.state) == wanted for one in manager.statuses(ModelRef("m"))))
            return read_predict(document, specs)

        monkeypatch.setattr(rest_server, "read_predict", read_while_the_version_changes)
        monkeypatch.setattr(manager, "lease", lambda ref: leased.append(ref) or lease(ref))
        assert server.post("/v1/models/m:predict", asked).json == {"predictions": [[3.0, 3.0, 3.0]]}
        assert len(leased) == 1
        monkeypatch.undo()
        assert server.post("/v1/models/m:predict", {"inputs": ["one"]}).json["outputs"]["loud"] == ["one!"]


def test_several_inputs_of_other_types_come_by_columns(predict):
    asked = {"inputs": {"small": [250, 3], "flag": [True, False]}}
    assert predict("mixed", asked).json == {"outputs": {"total": 253, "table": [250, 0]}}


def test_several_inputs_come_by_rows_where_each_has_a_row(predict):
    asked = {"instances": [{"small": 1, "flag": True}, {"small": 2, "flag": True}]}
    # `total` has no rows, so that rows cannot be made of the outputs
    assert "has no shape information" in predict("mixed", asked, 400).error


def test_strings_and_base64_mean_bytes(predict):
    encoded = {"b64": base64.b64encode(b"two").decode()}
    assert predict("words", {"instances": ["one", encoded]}).json["predictions"] == [
        {"number": 1, "loud": "one!"},
        {"number": 2, "loud": "two!"},
    ]
    assert predict("words", {"inputs": [encoded]}).json["outputs"] == {"number": [2], "loud": ["two!"]}
    assert predict("words", {"inputs": ["größe"]}).json["outputs"]["loud"] == ["größe!"]


def test_numbers_that_json_does_not_have_are_taken_and_given(predict):
    answer = predict("linear", '{"instances": [[NaN, Infinity, -Infinity]]}')
    [[first, second, third]] = answer.json["predictions"]
    assert math.isnan(first)
    assert (second, third) == (math.inf, -math.inf)
    assert "[NaN, Infinity, -Infinity]" in answer.text


def test_numbers_that_json_does_not_have_may_be_spelled_in_other_ways_too(predict):
    answer = predict("linear", '{"instances": [[-NaN, Inf, -Inf]]}')
    assert "[NaN, Infinity, -Infinity]" in answer.text
    assert predict("words", '{"instances": ["Inf -NaN"], "other": Inf}').json["predictions"][0]["loud"] == "Inf -NaN!"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"other": Inf, "inputs": "' + b'x\\\\\\"' * 75_000 + b'"}', "is not of expected type: float"),
        (b'{"inputs": "' + b'x\\\\\\"' * 75_000 + b'" 1}', "Expecting ',' delimiter"),
        (b'{"inputs": [["' + b"x" * 300_000 + b'"' + b", 1" * 300 + b"]]}", "is not of expected type: float"),
    ],
    ids=["infinity", "error", "text among numbers"],
)
def test_a_long_text_takes_no_more_memory_than_a_few_times_its_length(body, message):
    specs = {"x": TensorSpec("x:0", "float", np.dtype("float32"), None)}
    tracemalloc.start()
    try:
        with pytest.raises(ServingError, match=re.escape(message)):
            read_predict(Document(body), specs)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40 * len(body)


def test_a_whole_number_becomes_the_nearest_that_the_type_has(predict):
    # 2 x + 1; a timestamp is no error, though single precision cannot hold it
    asked = {"instances": [[1700000001, 16777217, 2**70]]}
    assert predict("linear/versions/1", asked).json == {"predictions": [[3400000000.0, 33554432.0, 2.3611832e21]]}
    assert predict("linear/versions/1", {"instances": [[1, True, 2]]}, 400)


def test_single_precision_is_written_with_as_few_digits_as_give_it_back(predict):
    assert "[1.5, 2.0, 1.0000001]" in predict("linear/versions/1", {"instances": [[0.25, 0.5, 5e-8]]}).text


def test_a_large_request_is_answered_as_well_as_a_small_one(predict):
    rows = [[row, 1, 2] for row in range(40_000)]
    predictions = predict("linear/versions/1", {"instances": rows}).json["predictions"]
    assert len(predictions) == 40_000
    assert predictions[39_999] == [79_999.0, 3.0, 5.0]


# Classify and Regress


def test_classification_gives_labels_and_scores(model_server):
    asked = {"signature_name": "classes", "examples": [{"x": [1.0, 2.0]}, {"x": [0.5, 0.0]}]}
    answer = model_server.post("/v1/models/examples:classify", asked)
    assert answer.json == {"results": [[["first", 1.0], ["second", 4.0]], [["first", 0.5], ["second", 0.0]]]}


def test_regression_gives_values_and_the_context_counts_for_each_example(model_server):
    asked = {"signature_name": "value", "context": {"x": [1.0, 2.0]}, "examples": [{}, {}]}
    assert model_server.post("/v1/models/examples:regress", asked).json == {"results": [5.0, 5.0]}


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_many_examples_are_read_while_other_requests_go_on(model_server, monkeypatch, method):
    from experiments_manager.serving.api.http import rest_server

    readers = []

    def read(document):
        readers.append(threading.current_thread())
        return read_examples(document)

    monkeypatch.setattr(rest_server, "read_examples", read)
    name = {"classify": "classes", "regress": "value"}[method]
    for count in (1, 20_000):
        asked = {"signature_name": name, "examples": [{"x": [1.0, 2.0]}] * count}
        assert len(model_server.post(f"/v1/models/examples:{method}", asked).json["results"]) == count
    assert readers[0] is not readers[1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "key 'examples' is expected and was not found"),
        ({"examples": 3}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [3]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1.0]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": [1.0, "a"]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": [2**63]}]}, "Feature: x has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"x": 1e300}]}, "without loss of precision"),
        ({"examples": [{"x": {"b64": "*"}}]}, "Unable to base64 decode"),
        ({"examples": [{"x": [1.0, 2.0]}], "signature_name": "none"}, "none"),
        ({"examples": [{"x": [1.0, 2.0]}], "signature_name": "\ud800"}, "The surrogate pair in string is invalid."),
    ],
)
def test_examples_that_are_none_are_refused(model_server, body, message):
    answer = model_server.post("/v1/models/examples:classify", {"signature_name": "classes", **body})
    assert (answer.status, message in answer.error) == (400, True), answer.text


# Status and metadata


def test_the_status_tells_of_all_versions_in_the_servers_words(model_server):
    assert model_server.get(LINEAR).json == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        ]
    }
    [status] = model_server.get(f"{LINEAR}/versions/1").json["model_version_status"]
    assert status["version"] == "1"
    [status] = model_server.get(f"{LINEAR}/labels/stable").json["model_version_status"]
    assert status["version"] == "1"


def test_the_metadata_has_the_signatures(model_server):
    answer = model_server.get(f"{LINEAR}/metadata").json
    assert answer["model_spec"] == {"name": "linear", "signature_name": "", "version": "2"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    shape = {"dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}], "unknown_rank": False}
    assert signature["inputs"]["x"] == {"dtype": "DT_FLOAT", "name": "serving_default_x:0", "tensor_shape": shape}
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert model_server.get(f"{LINEAR}/versions/1/metadata").json["model_spec"]["version"] == "1"


def test_names_in_the_path_are_decoded(model_server):
    assert model_server.get("/v1/models/%6cinear").status == 200
    assert model_server.get("/V1/Models/linear/Versions/1").status == 200
    assert "model_version_status" in model_server.get(f"{LINEAR}/METADATA").json  # its case counts, as there


# Errors


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/none", 404, "Could not find any versions of model none"),
        ("GET", f"{LINEAR}/versions/7", 404, "Could not find version 7 of model linear"),
        ("GET", f"{LINEAR}/labels/none", 400, "none"),
        ("GET", f"{LINEAR}/versions/99999999999999999999", 400, "Failed to convert version"),
        ("GET", f"{LINEAR}/versions/9223372036854775808", 400, "Failed to convert version"),
        ("GET", f"{LINEAR}:predict", 400, f"Malformed request: GET {LINEAR}:predict"),
        ("GET", f"{LINEAR}/versions/x", 400, "Malformed request"),
        ("GET", "/v1/models/../../etc/passwd", 400, "Malformed request"),
        ("GET", "/v1/models/..%2F..%2Fetc", 404, "Could not find any versions"),
        ("POST", "/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        ("POST", f"{LINEAR}/versions/7:predict", 404, "Servable not found for request: Specific(linear, 7)"),
        ("POST", f"{LINEAR}:none", 400, f"Malformed request: POST {LINEAR}:none"),
        ("POST", LINEAR, 400, "Malformed request"),
        ("PUT", LINEAR, 400, "Malformed request: PUT"),
        ("DELETE", LINEAR, 400, "Malformed request: DELETE"),
        ("GET", "/", 404, "Not found: /"),
        ("GET", "/favicon.ico", 404, "Expected /v1/models/NAME"),
    ],
)
def test_paths_that_lead_nowhere_say_so(model_server, method, path, status, message):
    answer = model_server.request(method, path, '{"instances": [[1, 2, 3]]}' if method == "POST" else None)
    assert (answer.status, message in answer.error) == (status, True), answer.text
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: Expecting value at offset: 0"),
        (" \n", "JSON Parse error: Expecting value at offset: 2"),
        ("{", "JSON Parse error: Expecting property name enclosed in double quotes at offset: 1"),
        ("instances = [1]", "JSON Parse error: Expecting value at offset: 0"),
        ('{"instances" [1]}', "JSON Parse error: Expecting ':' delimiter at offset: 13"),
        ('{"instances": [1 2]}', "JSON Parse error: Expecting ',' delimiter at offset: 17"),
        ('{"instances": "a', "JSON Parse error: Unterminated string starting at"),
        ("{} {}", "JSON Parse error: Extra data at offset: 3"),
        ('{"instances": Inf' + '\\"' * 50_000, "JSON Parse error"),
        (b"\xff\xfe{", "JSON Parse error: 'utf-8' codec can't decode byte 0xff"),
        ("[1]", "Is not object"),
        ("3", "JSON Value: 3 Is not object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"instances": ' + "9" * 5000 + "}", "Number too big"),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ({"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}, "only one of 'inputs' or 'instances'"),
        ({"instances": 3}, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [[1, 2, 3]], "signature_name": 3}, "'signature_name' key must be a string value."),
        ({"instances": [[1, 2, 3]], "signature_name": "none"}, 'Serving signature name: "none" not found'),
        ({"inputs": {"z": [[1, 2, 3]]}}, "Missing named input: x in 'inputs' object."),
        ({"instances": [{}]}, "JSON object: {} keys must be equal to: x"),
        (
            {"instances": [{"x": [1, 2, 3], "z": 0}]},
            "element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: z",
        ),
        ({"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}, "Expecting object but got list at item 1 of input list"),
        ({"instances": [[1, 2, 3], {"x": [1, 2, 3]}]}, "Expecting value/list but got object at item 1"),
        (
            {"instances": [[1, 2, 3], [1, 2]]},
            "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor",
        ),
        ({"instances": [[1, 2, "a"]]}, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"instances": [[1, 2, True]]}, "JSON Value: true Type: True is not of expected type: float"),
        ({"instances": [[1, 2, None]]}, "JSON Value: null Type: Null is not of expected type: float"),
        ({"instances": [[1, 2, 1e300]]}, "Cannot convert JSON value: 1e+300 to float without loss of precision."),
        ({"inputs": [[1, 2, 10**39]]}, "to float without loss of precision."),
        ({"inputs": [[1, 2, 10**400]]}, "to float without loss of precision."),
        ({"inputs": [[1, 2, 3], [1, 2]]}, "Encountered list at unexpected size: 2 at level: 1 expected size: 3"),
        ({"inputs": [[1, 2, 3], [1, [2], 3]]}, "Encountered list at unexpected level: 2 expected < 2"),
        ({"inputs": [[1, 2, 3], 4]}, "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ({"inputs": {"b64": "AAAA"}}, "Type: Object is not of expected type: float"),
    ],
)
def test_bodies_that_make_no_sense_are_refused_in_the_servers_words(predict, body, message):
    answer = predict("linear", body, 400)
    assert message in answer.error


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": {"small": [256, 0], "flag": [True, False]}}, "JSON Value: 256 Type: Number"),
        ({"inputs": {"small": [1.0, 0], "flag": [True, False]}}, "not of expected type: uint8"),
        ({"inputs": {"small": [1, 0], "flag": [1, 0]}}, "not of expected type: bool"),
        ({"inputs": [1, 0]}, "expecting an object as multiple input tensors required"),
        ({"instances": [1, 0]}, "expecting list of objects as multiple input tensors required"),
        ({"instances": [{"b64": "AA=="}]}, "expecting list of objects as multiple input tensors required"),
    ],
)
def test_types_are_not_mixed_up(predict, body, message):
    assert message in predict("mixed", body, 400).error


@pytest.mark.parametrize("value", [{"b64": "a"}, {"b64": 3}, {"b65": "aaaa"}, "\ud800"])
def test_what_is_neither_text_nor_base64_is_refused(predict, value):
    assert predict("words", json.dumps({"inputs": [value]}), 400).error


def test_an_error_inside_the_model_has_its_own_words(predict):
    assert "a bad word" in predict("words", {"instances": ["bad"]}, 400).error


def test_a_long_value_is_cut_in_the_error(predict):
    error = predict("linear", {"instances": [["a" * 100_000]]}, 400).error
    assert len(error) < 1000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_read(model_server, encoding):
    body = b'{"instances": [[1, 2, 3]]}'
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    answer = model_server.post(f"{LINEAR}:predict", packed, headers={"Content-Encoding": encoding})
    assert answer.json == {"predictions": [[6.0, 11.0, 16.0]]}


@pytest.mark.parametrize("body", [b"not compressed", b"{}", zlib.compress(b'{"instances": 3}')[:-4]])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "none-such"])
def test_a_body_that_is_not_what_its_encoding_says_is_refused(model_server, body, encoding):
    answer = model_server.post(f"{LINEAR}:predict", body, headers={"Content-Encoding": encoding})
    assert (answer.status, "Content-Encoding" in answer.error) == (400, True)


# Metrics, limits, other origins


def test_a_refused_request_is_not_kept_until_the_garbage_collector_comes(model_server):
    gc.collect()
    gc.disable()
    try:
        for body in ({"instances": [[1, 2]]}, {"instances": "none"}, {"instances": [[1, 2, 3]]}):
            model_server.post("/v1/models/linear:predict", body)
        for _ in range(2000):  # the thread that answered the last one may still hold it for a moment
            kept = sum(type(found) is Document for found in gc.get_objects())
            if not kept:
                break
            time.sleep(0.01)
        assert kept == 0
    finally:
        gc.enable()


def test_requests_are_counted_for_prometheus(model_server):
    parser = pytest.importorskip("prometheus_client.parser")
    model_server.post("/v1/models/mixed:predict", {"inputs": {"small": [1, 2], "flag": [True, True]}})
    model_server.post("/v1/models/never-heard-of:predict", {"instances": [1]})
    model_server.post("/v1/models/mixed:none", {})
    page = model_server.get("/monitoring/prometheus/metrics").text
    families = {family.name: family for family in parser.text_string_to_metric_families(page)}
    counts = {tuple(sorted(s.labels.items())): s.value for s in families[":tensorflow:serving:request_count"].samples}
    assert counts[(("model_name", "mixed"), ("status", "OK"))] >= 1
    assert "never-heard-of" not in page
    assert counts[(("model_name", ""), ("status", "NOT_FOUND"))] >= 1
    assert counts[(("model_name", ""), ("status", "INVALID_ARGUMENT"))] >= 1
    latency = families[":tensorflow:serving:request_latency"].samples
    labels = {"model_name": "mixed", "API": "predict", "entrypoint": "REST"}
    buckets = [s for s in latency if s.name.endswith("_bucket") and labels.items() <= s.labels.items()]
    assert len(buckets) == 34
    assert buckets[-1].labels["le"] == "+Inf"


@pytest.fixture(scope="module")
def strict_server(saved_models, running, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    saved_models.publish(saved_models.linear, folder / "linear", 1)
    monitoring = folder / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true path: '/counted' }")
    flags = [f"--model_base_path={folder / 'linear'}", "--model_name=linear", "--max_message_bytes=2000"]
    flags += ["--rest_api_enable_cors_support", f"--monitoring_config_file={monitoring}", "--max_in_flight=1"]
    with running.running_server(flags) as server:
        yield server


def test_a_body_that_is_too_large_is_refused(strict_server):
    answer = strict_server.post(f"{LINEAR}:predict", {"instances": [[1, 2, 3]] * 1000})
    assert (answer.status, "Expected at most 2000 bytes" in answer.error) == (413, True)
    assert strict_server.post(f"{LINEAR}:predict", {"instances": [[1, 2, 3]]}).status == 200


def test_a_body_that_grows_too_large_when_it_is_decompressed_is_refused(strict_server):
    packed = gzip.compress(b" " * 10_000_000)[:1990]
    answer = strict_server.post(f"{LINEAR}:predict", packed, headers={"Content-Encoding": "gzip"})
    assert (answer.status, "Expected at most 2000 bytes" in answer.error) == (413, True)


def test_a_small_body_cannot_take_gigabytes_by_growing(model_server):
    packed = gzip.compress(b'{"instances": [' + b" " * (33 * 2**20) + b"[1, 2, 3]]}")
    assert len(packed) < 2**16
    answer = model_server.post(f"{LINEAR}:predict", packed, headers={"Content-Encoding": "gzip"})
    assert answer.status == 413
    assert answer.error == (
        f"The body is too large once it is unpacked. Expected at most {32 * 2**20} bytes. Send fewer samples at once, "
        "or send it without Content-Encoding."
    )


@pytest.mark.parametrize(
    ("packed", "largest", "limit"),
    [
        (10, 2**31, 32 * 2**20),  # a small body may grow a lot
        (10 * 2**20, 2**31, 160 * 2**20),  # a large one as text with numbers does
        (10 * 2**20, 2**20, 2**20),  # none beyond what is taken without compression
    ],
)
def test_what_a_body_may_unpack_to_follows_from_its_size(packed, largest, limit):
    from experiments_manager.serving.api.http.rest_requests import unpacked_limit

    assert unpacked_limit(packed, largest) == limit


def test_a_body_may_unpack_to_just_the_limit():
    from experiments_manager.serving.api.http.rest_requests import BodyTooLargeError, decompressed

    plain = random.Random(0).randbytes(300_000)  # more than what is unpacked in one go
    packed = gzip.compress(plain) + b"what follows is nobody's business"
    assert decompressed(packed, "gzip", len(plain)) == plain
    with pytest.raises(BodyTooLargeError, match="Expected at most 299999 bytes"):
        decompressed(packed, "gzip", len(plain) - 1)


def test_a_compressed_body_is_not_unpacked_for_a_request_that_is_too_many(strict_server, monkeypatch):
    from experiments_manager.serving.api.http import rest_requests

    unpacked = []
    monkeypatch.setattr(rest_requests, "decompressed", lambda *arguments: unpacked.append(arguments))
    packed, headers = gzip.compress(b'{"instances": [[1, 2, 3]]}'), {"Content-Encoding": "gzip"}
    with Admitted(strict_server.server.admission, "REST") as other:
        other.begin()
        assert strict_server.post(f"{LINEAR}:predict", packed, headers=headers).status == 429
    assert unpacked == []


def test_metrics_stand_where_the_monitoring_file_says(strict_server):
    assert "load_attempt_count" in strict_server.get("/counted").text
    assert strict_server.get("/monitoring/prometheus/metrics").status == 404


def test_a_proxy_may_send_long_headers(model_server):
    assert model_server.get(LINEAR, headers={"X-Token": "a" * 30_000}).status == 200


def test_headers_say_what_comes_as_those_of_tensorflow_serving_do(model_server):
    assert model_server.get(LINEAR).headers["Content-Type"] == "application/json"
    for path in (LINEAR, "/nothing"):
        assert model_server.get(path).headers["Server"] == "experiments_manager"
    assert model_server.get("/monitoring/prometheus/metrics").headers["Content-Type"] == "text/plain"


def test_pages_from_other_origins_may_ask_where_that_is_switched_on(strict_server, model_server):
    preflight = {"headers": {"Origin": "https://there", "Access-Control-Request-Method": "POST"}}
    for answer in (strict_server.get(LINEAR), strict_server.request("OPTIONS", f"{LINEAR}:predict", **preflight)):
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")
    for answer in (model_server.get(LINEAR), model_server.request("OPTIONS", f"{LINEAR}:predict", **preflight)):
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers
    answer = strict_server.request("OPTIONS", f"{LINEAR}:predict")
    assert (answer.status, answer.error) == (400, "Origin header is missing in CORS preflight")


def test_more_requests_at_once_than_allowed_are_told_to_come_later(strict_server):
    with Admitted(strict_server.server.admission, "REST") as other:
        other.begin()
        assert strict_server.post(f"{LINEAR}:predict", {"instances": [[1, 2, 3]]}).status == 429


def test_a_request_that_takes_too_long_is_given_up(saved_models, running, tmp_path, monkeypatch):
    import asyncio

    saved_models.publish(saved_models.linear, tmp_path / "linear", 1)
    flags = [f"--model_base_path={tmp_path / 'linear'}", "--model_name=linear", "--rest_api_timeout_in_ms=50"]
    with running.running_server(flags) as server:

        async def never(*arguments):
            await asyncio.Event().wait()

        monkeypatch.setattr(server.server.scheduler, "predict", never)
        answer = server.post(f"{LINEAR}:predict", {"instances": [[1, 2, 3]]})
    assert (answer.status, answer.error) == (504, "No answer within 0.05 s")


def test_a_port_that_is_taken_is_one_clear_error(model_server, run_async):
    from experiments_manager.protocol.errors import ServerStartError
    from experiments_manager.serving.api.http.rest_server import RestOptions, RestServer

    async def start():
        await RestServer(model_server.server.handlers, RestOptions(port=model_server.rest)).start()

    with pytest.raises(ServerStartError, match=f"Cannot listen for REST at 127.0.0.1:{model_server.rest}"):
        run_async(start())
