"""JSON lines: one plain JSON object a line, which counts once the end of its line is there.

A process that is killed while it writes leaves a last line that is cut off, and a file system of the network shows what
was appended in pieces; neither is ever taken for an object.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from experiments_manager.common.jsonable import to_jsonable


def to_line(value: Mapping[str, Any]) -> bytes:
    """Return an object as a line, as plain as `to_jsonable` makes it; text that is no Unicode (of paths) is kept."""
    text = json.dumps(to_jsonable(dict(value)), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="surrogatepass") + b"\n"


def from_line(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line; `None` where it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def split_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that are whole, without their ends, and what follows the last of them."""
    *lines, rest = content.split(b"\n")
    return lines, rest


def append_line(descriptor: int, line: bytes) -> None:
    """Append to a file that was opened with `O_APPEND`, and bring it to the disk.

    Raises:
        OSError: It could not be written; a part of it may be.
    """
    written = 0
    while written < len(line):
        written += os.write(descriptor, line[written:])
    os.fsync(descriptor)
