"""What a process writes past Python, as TensorFlow's C++ libraries and `tf.print` do, sent elsewhere for a while."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

OUTPUTS = (1, 2)
"""The descriptors of standard output and standard error."""


@contextlib.contextmanager
def redirected(target: int, outputs: Sequence[int] = OUTPUTS) -> Iterator[None]:
    """Let what is written to the outputs inside go to an open file.

    Args:
        target: Descriptor of that file.
        outputs: Which outputs go there.
    """
    _flush(outputs)
    former = [os.dup(output) for output in outputs]
    for output in outputs:
        os.dup2(target, output)
    try:
        yield
    finally:
        _flush(outputs)
        for output, descriptor in zip(outputs, former, strict=True):
            os.dup2(descriptor, output)
            os.close(descriptor)


@contextlib.contextmanager
def errors_held_back(shown_if: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hold back what is written to standard error inside; it is shown where the block fails, or is asked for.

    Args:
        shown_if: Asked at the end of a block that did not raise.
    """
    with tempfile.TemporaryFile() as kept:
        is_shown = False
        try:
            with redirected(kept.fileno(), (2,)):
                yield
            is_shown = shown_if()
        except Exception:
            is_shown = True
            raise
        finally:
            if is_shown:
                kept.seek(0)
                sys.stderr.write(kept.read().decode(errors="replace"))
                sys.stderr.flush()


def _flush(outputs: Sequence[int]) -> None:
    """Let what Python holds of these outputs go where it should."""
    for output, stream in zip(OUTPUTS, (sys.stdout, sys.stderr), strict=True):
        if output in outputs:
            stream.flush()
