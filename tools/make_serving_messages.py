"""Writes the description of TensorFlow Serving's messages that ships with the package.

    python tools/make_serving_messages.py            # writes experiments_manager/serving/serving_messages.desc
    python tools/make_serving_messages.py --check    # only says whether the file is what would be written

It is taken from the installed packages `tensorflow-serving-api`, `tensorflow` and `grpcio-health-checking`; run it
again when one of them brings new messages. The configuration of batching is not in the package
`tensorflow-serving-api`, so its few fields are declared here, as in TensorFlow Serving's
`session_bundle_config.proto`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor

DESCRIPTOR_SET = Path(__file__).parents[1] / "experiments_manager" / "serving" / "serving_messages.desc"

ROOTS = {
    "tensorflow_serving.apis.prediction_service_pb2": "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving.apis.model_service_pb2": "tensorflow_serving/apis/model_service.proto",
    "tensorflow_serving.apis.prediction_log_pb2": "tensorflow_serving/apis/prediction_log.proto",
    "tensorflow_serving.config.model_server_config_pb2": "tensorflow_serving/config/model_server_config.proto",
    "tensorflow_serving.config.platform_config_pb2": "tensorflow_serving/config/platform_config.proto",
    "grpc_health.v1.health_pb2": "grpc_health/v1/health.proto",
}
"""The files whose messages are wanted, with all that they refer to: module that registers it, its name."""

BATCHING_FIELDS = [
    ("max_batch_size", "google.protobuf.Int64Value"),
    ("batch_timeout_micros", "google.protobuf.Int64Value"),
    ("max_enqueued_batches", "google.protobuf.Int64Value"),
    ("num_batch_threads", "google.protobuf.Int64Value"),
    ("thread_pool_name", "google.protobuf.StringValue"),
    ("allowed_batch_sizes", "repeated int64"),
    ("pad_variable_length_inputs", "bool"),
    ("enable_large_batch_splitting", "google.protobuf.BoolValue"),
    ("max_execution_batch_size", "google.protobuf.Int64Value"),
]
"""Fields of `BatchingParameters`, numbered from 1 in this order: name, type. It is read from text, where only names
count."""


def collect() -> descriptor_pb2.FileDescriptorSet:
    """The descriptions of all files, each after those that it imports."""
    for module in ROOTS:
        importlib.import_module(module)
    pool = descriptor_pool.Default()
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for name in ROOTS.values():
        _add_with_imports(pool.FindFileByName(name), files)
    found = descriptor_pb2.FileDescriptorSet(file=files.values())
    found.file.append(_batching_parameters())
    return found


def _add_with_imports(file: FileDescriptor, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if file.name in files:
        return
    for dependency in file.dependencies:
        _add_with_imports(dependency, files)
    description = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(description)
    files[file.name] = description


def _batching_parameters() -> descriptor_pb2.FileDescriptorProto:
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tensorflow_serving/servables/tensorflow/session_bundle_config.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name="BatchingParameters")
    for number, (name, kind) in enumerate(BATCHING_FIELDS, start=1):
        field = message.field.add(name=name, number=number, label=field_type.LABEL_OPTIONAL)
        if kind == "repeated int64":
            field.label, field.type = field_type.LABEL_REPEATED, field_type.TYPE_INT64
        elif kind == "bool":
            field.type = field_type.TYPE_BOOL
        else:
            field.type, field.type_name = field_type.TYPE_MESSAGE, f".{kind}"
    return file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where the file is not up to date"
    )
    arguments = parser.parse_args()
    serialized = collect().SerializeToString(deterministic=True)
    if arguments.check:
        up_to_date = DESCRIPTOR_SET.is_file() and DESCRIPTOR_SET.read_bytes() == serialized
        print(f"{DESCRIPTOR_SET} is {'up to date' if up_to_date else 'not what would be written'}")
        return 0 if up_to_date else 1
    DESCRIPTOR_SET.write_bytes(serialized)
    print(f"{DESCRIPTOR_SET}: {len(serialized)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
