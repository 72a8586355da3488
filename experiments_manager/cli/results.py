"""What a command gives to other programs: a JSON object, the last line of standard output; or one as things happen."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from experiments_manager.runs import Run


class ResultLine:
    """Standard output, reserved for JSON objects, a line each.

    From its making to the end of the process, whatever else is written to standard output goes to standard error: the
    prints of hooks, and what TensorFlow's C++ and `tf.print` write past Python.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        self._output = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def write(self, result: Mapping[str, Any]) -> None:
        """Write the last object, or the only one."""
        with self._output:
            self._output.write(as_line(result))

    def add(self, result: Mapping[str, Any]) -> None:
        """Write an object that others follow, at once."""
        self._output.write(as_line(result))
        self._output.flush()

    def close(self) -> None:
        """Close the output, where `write` does not."""
        self._output.close()


def as_line(result: Any) -> str:
    """Return the result as one line of strict JSON; NaN and the infinities are strings, as in run.json."""
    from experiments_manager.common.jsonable import to_jsonable

    return json.dumps(to_jsonable(result), allow_nan=False) + "\n"


def run_summary(run: Run) -> dict[str, Any]:
    """Return what a run came to, from its run.json.

    Returns:
        `run_dir`, `state`, `epochs`, `best` (`{epoch, value, name}` or `None`), `metrics` (of the last epoch) and
        `exported_model` (absolute, or `None`); for a run that failed, also `error` (`{type, text, place}`).
    """
    manifest = run.manifest
    best, exported = manifest.get("best"), manifest.get("exported_model")
    summary = {
        "run_dir": str(run.path),
        "state": manifest.get("state"),
        "epochs": manifest.get("epochs"),
        "best": best and {key: best.get(key) for key in ("epoch", "value", "name")},
        "metrics": manifest.get("metrics") or {},
        "exported_model": exported and str(run.path / exported),
    }
    return summary | ({"error": manifest["error"]} if manifest.get("error") else {})
