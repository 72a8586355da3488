"""What a client keeps from one round to the next, on its own disk: after each of the last two rounds.

A server begins a round only when the one before is on its disk. So one that was killed asks again for the last round
that a client trained, at the earliest. The client then goes on from what it kept before that, and answers the same.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments_manager.common.atomic import remove_leftovers, write_bytes
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.message_records import named_dtype

_FILE = re.compile(r"round-(\d+)\.npz")
_DTYPES = "dtypes"


class KeptRounds:
    """A folder with one file a round.

    Args:
        folder: It need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if folder.is_dir():
            remove_leftovers(folder)

    def last_before(self, round: int) -> int:  # noqa: A002
        """Return the round from whose end a round goes on; 0 stands for the very beginning.

        Raises:
            FederationError: What was kept is of this round and later ones alone.
        """
        rounds = self._rounds()
        earlier = [number for number in rounds if number < round]
        if earlier or not rounds or round == 1:
            return max(earlier, default=0)
        told = " and ".join(str(number) for number in sorted(rounds))
        raise FederationError(
            f"What this client keeps does not fit: it is of round {told}. Expected that of a round before {round}, "
            "which the server asks for: it went back further than a client can. Resume the server from its newest "
            f"checkpoint, or remove {self._folder}, and the client begins anew with its optimizer and its own layers."
        )

    def read(self, round: int) -> dict[str, np.ndarray]:  # noqa: A002
        """Return what was kept after a round; nothing of round 0.

        Raises:
            FederationError: The file cannot be read.
        """
        if round == 0:
            return {}
        try:
            with np.load(self._file(round), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            dtypes = json.loads(arrays.pop(_DTYPES).tobytes())
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise FederationError(
                f"{self._file(round)} cannot be read: {error}. Expected what this client kept after round {round}. "
                "Restore the file, or remove the folder, and the client begins anew."
            ) from error
        return {name: _as(array, dtypes[name]) for name, array in arrays.items()}

    def write(self, round: int, arrays: Mapping[str, np.ndarray]) -> None:  # noqa: A002
        """Keep what a round left, and of the earlier ones the newest alone.

        Raises:
            OSError: It cannot be written; what was kept is what it was before.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        dtypes = json.dumps({name: array.dtype.name for name, array in arrays.items()})
        plain = {name: _plain(array) for name, array in arrays.items()}
        np.savez(data, **plain, **{_DTYPES: np.frombuffer(dtypes.encode(), np.uint8)})
        write_bytes(self._file(round), data.getvalue())
        earlier = max((number for number in self._rounds() if number < round), default=0)
        for number in self._rounds():
            if number not in (earlier, round):
                self._file(number).unlink(missing_ok=True)

    def _file(self, round: int) -> Path:  # noqa: A002
        return self._folder / f"round-{round:06d}.npz"

    def _rounds(self) -> list[int]:
        return [int(found[1]) for path in self._folder.glob("*.npz") if (found := _FILE.fullmatch(path.name))]


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array whose type `.npy` knows, bit for bit: `bfloat16` and the like are none."""
    return array if np.dtype(array.dtype.str) == array.dtype else array.view(f"u{array.dtype.itemsize}")


def _as(array: np.ndarray, dtype: str) -> np.ndarray:
    return array if array.dtype.name == dtype else array.view(named_dtype(dtype))
