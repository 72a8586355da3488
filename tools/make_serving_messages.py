"""Writes the description of TensorFlow Serving's messages that ships with the package.

    python tools/make_serving_messages.py            # writes experiments_manager/protocol/serving_messages.desc
    python tools/make_serving_messages.py --check    # only says whether the file is what would be written

It is taken from the installed packages `tensorflow-serving-api`, `tensorflow` and `grpcio-health-checking`; run it
again when one of them brings new messages. The configuration of batching and the profiler's service are in none of
them, so the few fields that count here are declared below, as in TensorFlow Serving's `session_bundle_config.proto`,
and in TensorFlow's `profiler_service.proto` and `xplane.proto`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

DESCRIPTOR_SET = Path(__file__).parents[1] / "experiments_manager" / "protocol" / "serving_messages.desc"

ROOTS = {
    "tensorflow_serving.apis.prediction_service_pb2": "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving.apis.model_service_pb2": "tensorflow_serving/apis/model_service.proto",
    "tensorflow_serving.apis.prediction_log_pb2": "tensorflow_serving/apis/prediction_log.proto",
    "tensorflow_serving.config.model_server_config_pb2": "tensorflow_serving/config/model_server_config.proto",
    "tensorflow_serving.config.platform_config_pb2": "tensorflow_serving/config/platform_config.proto",
    "grpc_health.v1.health_pb2": "grpc_health/v1/health.proto",
}
"""The files whose messages are wanted, with all that they refer to: module that registers it, its name."""

BATCHING = {
    "BatchingParameters": [
        (1, "max_batch_size", ".google.protobuf.Int64Value"),
        (2, "batch_timeout_micros", ".google.protobuf.Int64Value"),
        (3, "max_enqueued_batches", ".google.protobuf.Int64Value"),
        (4, "num_batch_threads", ".google.protobuf.Int64Value"),
        (5, "thread_pool_name", ".google.protobuf.StringValue"),
        (6, "allowed_batch_sizes", "repeated int64"),
        (7, "pad_variable_length_inputs", "bool"),
        (8, "enable_large_batch_splitting", ".google.protobuf.BoolValue"),
        (9, "max_execution_batch_size", ".google.protobuf.Int64Value"),
    ]
}
"""Fields of messages: number, name, type. These parameters are read from text, where only names count."""

PROFILER = {
    "ProfileOptions": [
        (2, "host_tracer_level", "uint32"),
        (3, "device_tracer_level", "uint32"),
        (5, "version", "uint32"),
        (8, "start_timestamp_ns", "uint64"),
        (9, "duration_ms", "uint64"),
    ],
    "ProfileRequest": [
        (1, "duration_ms", "uint64"),
        (4, "opts", ".tensorflow.ProfileOptions"),
        (6, "session_id", "string"),
        (9, "emit_xspace", "bool"),
    ],
    "ProfileToolData": [(1, "name", "string"), (2, "data", "bytes")],
    "ProfileResponse": [
        (6, "tool_data", "repeated .tensorflow.ProfileToolData"),
        (7, "empty_trace", "bool"),
        (8, "xspace", "bytes"),
    ],
    "TerminateRequest": [(1, "session_id", "string")],
    "TerminateResponse": [],
    "MonitorRequest": [(1, "duration_ms", "uint64")],
    "MonitorResponse": [(1, "data", "string")],
    "XSpace": [(1, "planes", "repeated .tensorflow.XPlane")],
    "XPlane": [(3, "lines", "repeated .tensorflow.XLine")],
    "XLine": [(4, "events", "repeated bytes")],
}
"""The same of the profiler's service. A trace and its events are bytes, which nobody here looks into."""


def collect() -> descriptor_pb2.FileDescriptorSet:
    """Return the descriptions of all files, each after those that it imports."""
    for module in ROOTS:
        importlib.import_module(module)
    pool = descriptor_pool.Default()
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for name in ROOTS.values():
        _add_with_imports(pool.FindFileByName(name), files)
    found = descriptor_pb2.FileDescriptorSet(file=files.values())
    folder = "tensorflow_serving/servables/tensorflow"
    wrappers = "google/protobuf/wrappers.proto"
    found.file.append(_declared(f"{folder}/session_bundle_config.proto", "tensorflow.serving", BATCHING, wrappers))
    found.file.append(_declared("tsl/profiler/protobuf/profiler_service.proto", "tensorflow", PROFILER))
    return found


def _add_with_imports(file: FileDescriptor, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if file.name in files:
        return
    for dependency in file.dependencies:
        _add_with_imports(dependency, files)
    description = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(description)
    files[file.name] = description


def _declared(
    name: str, package: str, messages: dict[str, list[tuple[int, str, str]]], *dependencies: str
) -> descriptor_pb2.FileDescriptorProto:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=dependencies)
    for message, fields in messages.items():
        declared = file.message_type.add(name=message)
        for number, field_name, kind in fields:
            label = field_type.LABEL_REPEATED if kind.startswith("repeated ") else field_type.LABEL_OPTIONAL
            field = declared.field.add(name=field_name, number=number, label=label)
            kind = kind.removeprefix("repeated ")
            if kind.startswith("."):
                field.type, field.type_name = field_type.TYPE_MESSAGE, kind
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
    return file


def declared(files: descriptor_pb2.FileDescriptorSet) -> set[bytes]:
    """Return every field, value and method that files declare, each with the name of what it belongs to."""
    found = set()
    for file in files.file:
        waiting = [(file.name, message) for message in file.message_type]
        enums = [(file.name, enum) for enum in file.enum_type]
        while waiting:
            place, message = waiting.pop()
            place = f"{place}/{message.name}"
            found |= {place.encode() + field.SerializeToString(deterministic=True) for field in message.field}
            waiting += [(place, inner) for inner in message.nested_type]
            enums += [(place, enum) for enum in message.enum_type]
        for place, enum in enums:
            found |= {f"{place}/{enum.name}/{value.name}={value.number}".encode() for value in enum.value}
        for service in file.service:
            found |= {
                f"{file.name}/{service.name}".encode() + method.SerializeToString(deterministic=True)
                for method in service.method
            }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where the file is not up to date"
    )
    arguments = parser.parse_args()
    found = collect()
    serialized = found.SerializeToString(deterministic=True)
    if arguments.check:
        shipped = descriptor_pb2.FileDescriptorSet()
        shipped.ParseFromString(DESCRIPTOR_SET.read_bytes() if DESCRIPTOR_SET.is_file() else b"")
        up_to_date = declared(found) <= declared(shipped)  # older packages declare less
        print(f"{DESCRIPTOR_SET} is {'up to date' if up_to_date else 'not what would be written'}")
        return 0 if up_to_date else 1
    DESCRIPTOR_SET.write_bytes(serialized)
    print(f"{DESCRIPTOR_SET}: {len(serialized)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
