"""Records and messages of Flower as bytes. This module imports flwr: import it after `flower()`."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.message_pb2 import Message as MessageProto  # its format on the wire
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto


def pack_records(content: RecordDict) -> bytes:
    """Return records as bytes."""
    return recorddict_to_proto(content).SerializeToString()


def unpack_records(data: bytes) -> RecordDict:
    """Return the records of `pack_records`."""
    return recorddict_from_proto(RecordDictProto.FromString(data))


def pack_message(message: Message) -> bytes:
    """Return a message with its metadata, and with its content or its error, as bytes."""
    return message_to_proto(message).SerializeToString()


def unpack_message(data: bytes) -> Message:
    """Return the message of `pack_message`."""
    return message_from_proto(MessageProto.FromString(data))
