"""The messages of TensorFlow Serving's API, without TensorFlow and without `tensorflow_serving`.

    from experiments_manager.protocol import messages

    request = messages.PredictRequest()
    request.inputs["x"].dtype = 1
    messages.ModelVersionStatus.AVAILABLE        # values of a nested enumeration

The classes are built when they are first asked for, from `serving_messages.desc`, which ships with the package and is
written by `tools/make_serving_messages.py`: a few milliseconds, where importing `tensorflow_serving.apis` takes
seconds. They live in a descriptor pool of their own, so they meet neither TensorFlow's own classes nor anybody
else's; what they write is the same.

Any message of the packages `tensorflow.serving`, `tensorflow`, `grpc.health.v1` and `google.protobuf` that the API
refers to can be had by its bare name: `PredictRequest`, `TensorProto`, `Example`, `ModelServerConfig`,
`PredictionLog`, `SignatureDefMap`, `BatchingParameters`, `HealthCheckRequest`, and so on.

`raw` gives the same classes with one difference: the packed number fields of `TensorProto` (`float_val`, `int64_val`,
…) are declared `repeated bytes`. The bytes on the wire are the same, since a packed field is one length and its
payload, but reading a tensor of twelve megabytes does not make three million Python numbers:
`raw.PredictRequest.FromString(data)`, then `tensors.to_array`. A sender may also leave such fields unpacked, which is
legal and hardly ever done; they are then unknown to the raw class, and `tensors.to_array` reads them in the usual
way.
"""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

DESCRIPTOR_SET = Path(__file__).with_name("serving_messages.desc")
"""The shipped `FileDescriptorSet`."""

_PACKAGES = ("tensorflow.serving", "tensorflow", "grpc.health.v1", "google.protobuf")
_TENSOR_FILE = "tensorflow/core/framework/tensor.proto"
_PACKED_FIELDS = frozenset(
    [
        "half_val",
        "float_val",
        "double_val",
        "int_val",
        "scomplex_val",
        "int64_val",
        "bool_val",
        "dcomplex_val",
        "uint32_val",
        "uint64_val",
    ]
)
_lock = threading.Lock()


class MessageClasses:
    """The message classes of one descriptor pool, as attributes by their bare names.

    Args:
        packed_as_bytes: Declares `TensorProto`'s packed fields as `repeated bytes`.
    """

    def __init__(self, *, packed_as_bytes: bool) -> None:
        self._packed_as_bytes = packed_as_bytes

    @cached_property
    def _pool(self) -> descriptor_pool.DescriptorPool:
        files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTOR_SET.read_bytes())
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            if self._packed_as_bytes and file.name == _TENSOR_FILE:
                _declare_packed_fields_as_bytes(file)
            pool.AddSerializedFile(file.SerializeToString())
        return pool

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        # A pool is filled by one thread; others wait for it.
        with _lock:
            message_class = _find(self._pool, name)
        setattr(self, name, message_class)
        return message_class


def _declare_packed_fields_as_bytes(file: descriptor_pb2.FileDescriptorProto) -> None:
    (tensor,) = (message for message in file.message_type if message.name == "TensorProto")
    for field in tensor.field:
        if field.name in _PACKED_FIELDS:
            field.type = descriptor_pb2.FieldDescriptorProto.TYPE_BYTES
            field.ClearField("options")  # [packed = true], which only numbers can be


def _find(pool: descriptor_pool.DescriptorPool, name: str) -> Any:
    for package in _PACKAGES:
        try:
            return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        except KeyError:
            continue
    raise AttributeError(f"TensorFlow Serving's API has no message {name!r}")


standard = MessageClasses(packed_as_bytes=False)
"""The classes as everybody declares them; the module's own attributes are these."""

raw = MessageClasses(packed_as_bytes=True)
"""The classes whose tensors keep packed numbers as the bytes that they are."""


def __getattr__(name: str) -> Any:
    """Return a message class by its bare name (PEP 562)."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(standard, name)
