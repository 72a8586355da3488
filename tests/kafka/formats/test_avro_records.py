"""Avro records: of a schema registry, and files with a schema of their own.

The registry is a small HTTP server of this file that answers the two questions a reader asks, as Confluent's does: the
real one is not to be had as a package.
"""

import http.server
import io
import json
import re
import sys
import threading

import fastavro
import numpy as np
import pytest

from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.formats.decoders import field_decoder
from experiments_manager.kafka.reading.decoding import find_bad

pytest.importorskip("confluent_kafka.schema_registry", reason="pip install '.[kafka]'")

SCHEMA = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "x", "type": {"type": "array", "items": "float"}},
        {"name": "y", "type": "long"},
        {"name": "page", "type": ["null", "string"]},
    ],
}
ADDRESS = {"type": "record", "name": "Address", "fields": [{"name": "street", "type": "string"}]}
PERSON = {"type": "record", "name": "Person", "fields": [{"name": "x", "type": "Address"}]}
ROWS = [{"x": [0.5, 1.5], "y": 1, "page": "a"}, {"x": [2.0, 3.0], "y": 2, "page": None}]
SCHEMAS = {
    7: {"schema": json.dumps(SCHEMA)},
    8: {"schema": "{}", "schemaType": "PROTOBUF"},
    9: {"schema": json.dumps(PERSON), "references": [{"name": "Address", "subject": "address", "version": 3}]},
}


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers like a schema registry."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        self.answer(*self.found(self.path.split("?")[0]))

    def found(self, path):
        if self.server.broken:
            return 422, {"error_code": 42201, "message": "out of order"}
        if number := re.fullmatch(r"/schemas/ids/(\d+)", path):
            schema = SCHEMAS.get(int(number[1]))
            return (200, schema) if schema else (404, {"error_code": 40403, "message": "Schema not found"})
        if path == "/subjects/address/versions/3":
            return 200, {"subject": "address", "version": 3, "id": 10, "schema": json.dumps(ADDRESS)}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Says nothing."""


@pytest.fixture
def registry():
    """A server of schemas; `asked` holds what was asked of it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.asked, server.broken = [], False
        server.place = f"127.0.0.1:{server.server_address[1]}"
        server.url = f"http://{server.place}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def wired(row, number=7, schema=SCHEMA, named=None):
    """Writes a record as a serialiser of the registry does."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema, named_schemas=named or {}), row)
    return b"\0" + number.to_bytes(4, "big") + stream.getvalue()


def file_of(rows, codec="null"):
    stream = io.BytesIO()
    fastavro.writer(stream, SCHEMA, rows, codec)
    return stream.getvalue()


def test_records_of_a_registry_are_decoded_by_their_schema_which_is_asked_for_once(registry):
    records = [wired(row) for row in ROWS]
    decoder = field_decoder("avro", records, registry=registry.url)
    (x, y), counts = decoder.decode(records * 3)
    np.testing.assert_array_equal(x, [[0.5, 1.5], [2, 3]] * 3)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert counts.tolist() == [1] * 6
    assert [path.split("?")[0] for path, _ in registry.asked] == ["/schemas/ids/7"]


def test_a_file_of_avro_in_a_record_needs_no_registry_and_holds_several_samples():
    records = [file_of(ROWS), file_of(ROWS[:1], "deflate")]
    (x, y), counts = field_decoder("avro", records).decode(records)
    assert x.shape == (3, 2)
    assert y.tolist() == [1, 2, 1]
    assert counts.tolist() == [2, 1]


def test_a_schema_may_refer_to_others(registry):
    record = wired({"x": {"street": "Weg"}}, 9, PERSON, {"Address": fastavro.parse_schema(ADDRESS)})
    decoder = field_decoder("avro", [record], registry=registry.url)
    assert decoder.decode([record])[0]["street"].tolist() == [b"Weg"]


def test_user_and_password_may_come_from_the_environment_and_are_not_shown(registry, monkeypatch):
    monkeypatch.setenv("REGISTRY_PASSWORD", "geheim")
    url = registry.url.replace("http://", "http://me:${REGISTRY_PASSWORD}@")
    field_decoder("avro", [wired(ROWS[0])], registry=url)
    assert registry.asked[0][1] == "Basic bWU6Z2VoZWlt"
    registry.broken = True
    with pytest.raises(TopicError) as refused:
        field_decoder("avro", [wired(ROWS[0])], registry=url.replace("http://me", "http://you"))
    assert registry.place in str(refused.value)
    assert "geheim" not in str(refused.value)
    assert "you" not in str(refused.value)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (wired(ROWS[0])[:-1], "does not fit its Avro schema"),
        (wired(ROWS[0]) + b"!", "longer than its schema says"),
        (wired(ROWS[0], 99), "has no schema 99"),
        (wired(ROWS[0], 8), "of PROTOBUF"),
        (b"{}", "does not begin like Avro: 7b 7d"),
        (b"", "it is empty"),
        (b"Obj\x01" + b"\xff" * 40, "does not fit its Avro schema"),
        (file_of([]), "no samples"),
    ],
    ids=["cut off", "too long", "unknown schema", "no Avro schema", "JSON", "empty", "no file", "file of nothing"],
)
def test_a_record_that_does_not_fit_is_bad_and_the_others_are_good(registry, bad, said):
    good = [wired(row) for row in ROWS]
    decoder = field_decoder("avro", good, registry=registry.url)
    reasons = find_bad(decoder.decode, [good[0], bad, good[1]])
    assert list(reasons) == [1]
    assert said in reasons[1]


def test_records_of_a_registry_without_its_address_are_refused():
    with pytest.raises(TopicError, match="Set kafka_schema_registry"):
        field_decoder("avro", [wired(ROWS[0])])


def test_a_registry_that_is_out_of_order_is_no_fault_of_the_records(registry):
    decoder = field_decoder("avro", [file_of(ROWS)], registry=registry.url)
    registry.broken = True
    with pytest.raises(TopicError, match=r"does not give schema 7: out of order \(HTTP 422\)"):
        find_bad(decoder.decode, [wired(ROWS[0])])
    registry.broken = False
    assert find_bad(decoder.decode, [wired(ROWS[0])]) == {}


def test_a_registry_that_is_not_there_is_named(free_port):
    with pytest.raises(TopicError, match=rf"127\.0\.0\.1:{free_port} cannot be used: \w+\. Start it"):
        field_decoder("avro", [wired(ROWS[0])], registry=f"http://127.0.0.1:{free_port}")


def test_an_address_that_is_none_is_refused():
    with pytest.raises(TopicError, match="Expected a URL such as http://localhost:8081, got localhost:8081"):
        field_decoder("avro", [wired(ROWS[0])], registry="localhost:8081")


@pytest.mark.parametrize(
    ("package", "registry", "said"),
    [
        ("fastavro", None, "need the package fastavro"),
        ("confluent_kafka.schema_registry", "http://localhost:8081", "needs the package confluent_kafka"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, package, registry, said):
    record = wired(ROWS[0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TopicError, match=said) as refused:
        field_decoder("avro", [record], registry=registry)
    assert "pip install 'confluent-kafka" in str(refused.value)
