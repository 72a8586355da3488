"""The signatures in the metadata of a TensorFlow Lite file, which are those that TensorFlow Serving goes by.

They are `SignatureDef` messages in a FlexBuffer, a map by their keys, and name tensors of the graph that the file was
converted from; older converters cut the number off a tensor's name.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code, ServingError, invalid_argument

_ENTRY = b"signature_defs_metadata"


def read_definitions(file: Path, inputs: Collection[str], outputs: Collection[str]) -> dict[str, Any]:
    """Read the signatures of a file.

    Args:
        file: The file.
        inputs: Names of the model's input tensors.
        outputs: Names of its output tensors.

    Returns:
        `SignatureDef` messages by key, whose tensors have the names that they have in the file; empty without any.

    Raises:
        ServingError: INVALID_ARGUMENT for metadata that is damaged, INTERNAL where it names another tensor.
    """
    try:
        definitions = dict(_definitions(file))
    except Exception as error:  # whatever the readers of flat buffers come up with
        reason = f"{type(error).__name__}: {error}"
        raise invalid_argument(f"Invalid SignatureDefs found in TfLite model: {file}: {reason}") from error
    for definition in definitions.values():
        for infos, known, side in ((definition.inputs, inputs, "input"), (definition.outputs, outputs, "output")):
            for alias, info in infos.items():
                info.name = _name_in(known, info.name, f"{file}: Signature {side} {alias}")
    return definitions


def bare_names(names: Collection[str]) -> dict[str, str]:
    """Return the names that tensors have in a signature made up for them: without the number after a colon.

    Args:
        names: Names of tensors.

    Returns:
        Names of tensors by those names; where two would have the same, by themselves.
    """
    bare = [name.partition(":")[0] for name in names]
    return {short if bare.count(short) == 1 else name: name for short, name in zip(bare, names, strict=True)}


def _definitions(file: Path) -> Iterator[tuple[str, Any]]:
    from flatbuffers import flexbuffers

    packed = _packed_definitions(file)
    if not packed:
        return
    packed_map = flexbuffers.GetRoot(packed).AsMap
    for key, value in zip(packed_map.Keys, packed_map.Values, strict=True):
        content = value.AsBlob if value.IsBlob else value.AsStringBytes
        yield key.AsKey, messages.SignatureDef.FromString(content)


def _packed_definitions(file: Path) -> bytes:
    from ai_edge_litert.schema_py_generated import Model

    with file.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # weights need not be read
    model = Model.GetRootAs(content, 0)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if entry.Name() == _ENTRY:
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    return b""


def _name_in(known: Collection[str], name: str, what: str) -> str:
    for candidate in (name, name.partition(":")[0]):
        if candidate in known:
            return candidate
    raise ServingError(Code.INTERNAL, f"{what} references an unknown tensor: Unknown tensor '{name}'.")
