"""Bad requests by REST: each gets a proper status, and the server goes on.

`EXPERIMENTS_MANAGER_REQUESTS` says how many.
"""

import contextlib
import http.client
import json
import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

REQUESTS = int(os.environ.get("EXPERIMENTS_MANAGER_REQUESTS", "500"))
LINEAR = "/v1/models/linear"
GOOD = json.dumps({"instances": [[1, 1, 1]]})

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just({"b64": "AAA="}), st.just({})
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["x", "b64", "z", "small", "flag"]), inner)
    ),
    max_leaves=12,
)
keys = st.sampled_from(["instances", "inputs", "signature_name", "examples", "context", "other"])
objects = st.dictionaries(keys, values, max_size=4).map(json.dumps)
bodies = st.one_of(
    objects.map(str.encode),
    st.binary(max_size=200),
    values.map(json.dumps).map(str.encode),
    st.tuples(objects, st.integers(0, 100)).map(lambda cut: cut[0].encode()[: cut[1]]),
    st.integers(1, 3000).map(lambda depth: b'{"instances": ' + b"[" * depth + b"]" * depth + b"}"),
    st.sampled_from([b'{"instances": [1e999]}', b'{"inputs": [[-0]]}', b'{"inputs": "\\ud800"}', b"\x00" * 50]),
)
names = st.sampled_from(
    ["linear", "words", "mixed", "examples", "none", "", "..", "%2e%2e%2fetc", "%00", "%ff", "a" * 500]
)
places = st.one_of(
    st.just(""),
    st.one_of(st.integers(-3, 2**70).map(str), st.text("0123456789x", max_size=30)).map("/versions/{}".format),
    st.sampled_from(["/labels/stable", "/labels/none", "/labels/", "/labels/%20", "/versions/1/labels/stable"]),
)
methods = st.sampled_from(
    [":predict", ":classify", ":regress", ":PREDICT", ":", ":none", "/metadata", "", ":predict/x"]
)
verbs = st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "BREW"])
headers = st.sampled_from(
    [{}, {"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}, {"Content-Encoding": "deflate"}, {"Expect": "x"}]
)
PROPER = {200, 400, 404, 405, 413, 415, 417, 429, 501}
"""What a request of this sort may get; 500, no answer at all, or a closed connection are failures of the server."""


@pytest.fixture(scope="module")
def connection(model_server):
    made = http.client.HTTPConnection("127.0.0.1", model_server.rest, timeout=30)
    yield made
    made.close()


def ask(connection, verb, path, body, extra):
    try:
        connection.request(verb, path, body, extra)
        response = connection.getresponse()
        return response.status, response.read()
    except Exception:
        connection.close()  # so that Hypothesis can try again
        raise


@pytest.mark.slow
@settings(
    max_examples=REQUESTS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a request that hangs is told at once, and not made smaller for minutes
)
@given(verb=verbs, name=names, place=places, method=methods, body=bodies, extra=headers)
def test_bad_requests_get_a_proper_status_and_the_server_goes_on(connection, verb, name, place, method, body, extra):
    status, content = ask(connection, verb, f"/v1/models/{name}{place}{method}", body, extra)
    assert status in PROPER
    if verb == "BREW":  # no method of HTTP at all, which is refused before anybody looks at the path
        assert status == 400
    elif verb != "HEAD" and status != 417:
        answer = json.loads(content)
        assert status == 200 or list(answer) == ["error"]
    if status == 200:
        return
    status, content = ask(connection, "POST", f"{LINEAR}/versions/1:predict", GOOD, {})
    assert (status, json.loads(content)) == (200, {"predictions": [[3.0, 3.0, 3.0]]})


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/models/linear HTTP/9.9\r\n\r\n",
        b"POST /v1/models/linear:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/linear:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{",
        b"POST /v1/models/linear:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
        bytes(range(256)) * 10,
    ],
)
def test_bytes_that_are_no_http_do_not_stop_the_server(model_server, raw):
    import socket

    with socket.create_connection(("127.0.0.1", model_server.rest), timeout=30) as client:
        try:
            client.sendall(raw)
            with contextlib.suppress(OSError):  # it may have hung up already
                client.shutdown(socket.SHUT_WR)
            answer = client.recv(100)
        except ConnectionError:
            answer = b""
    assert answer == b"" or b" 400 " in answer
    assert model_server.get(LINEAR).status == 200
