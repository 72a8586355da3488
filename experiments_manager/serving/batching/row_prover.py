"""Which signatures of which versions were proved to have independent samples; proofs are made aside, and kept.

A proof is made when requests first come together, in a thread of low priority, so that no version loads later for it
and a server that nobody asks does nothing. Until it is there, and where it fails, requests run alone. It stands in the
version's folder, where TensorFlow Serving does not look, with the checksum of the version and with what computed it:
how numbers are rounded is the engine's and the processor's doing, so another machine proves for itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.common.checksums import file_digest
from experiments_manager.protocol.status import ServingError
from experiments_manager.serving.batching.options import Proof
from experiments_manager.serving.batching.row_proof import RowProof, prove
from experiments_manager.serving.batching.row_samples import Row, first_row
from experiments_manager.serving.models.signatures import Arrays, Model, Signature
from experiments_manager.serving.models.threads import lower_priority
from experiments_manager.serving.models.warmup import recorded_inputs

logger = logging.getLogger(__name__)

PROOF_FILE = Path("assets.extra") / "independent_samples.json"
FORMAT = 2
MOST_PROOFS = 64
"""Combinations of signature, outputs and shapes that are proved for a version; further ones run alone."""
_MOST_SEEDS = 16
_ATTEMPTS = (1, 4, 16)
"""Samples of requests with which another attempt is made, where the model answered none of those made up."""


@dataclasses.dataclass(eq=False)
class Claim:
    """Requests of one kind, and whether they may share calls.

    Attributes:
        model: The version.
        name: The model's name, for messages.
        signature: What is asked.
        outputs: Outputs that are computed; the engine may compute others in another way.
        shapes: Shapes of a sample by input name.
        sizes: Sizes of calls that are proved; empty where none is, or not yet.
        seeds: Samples of requests, of which one is taken from each request as long as they are wanted.
    """

    model: weakref.ref[Model]
    name: str
    signature: Signature
    outputs: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    sizes: tuple[int, ...] = ()
    seeds: list[Row] = dataclasses.field(default_factory=list)
    wants_seeds: bool = True
    waiting: bool = False

    @property
    def key(self) -> str:
        """Its name in the file."""
        return json.dumps([self.signature.name, self.outputs, sorted(self.shapes.items())])

    def offer(self, inputs: Arrays) -> bool:
        """Take a sample of a request, and return whether another attempt to prove is due with it."""
        if not self.wants_seeds or len(self.seeds) >= _MOST_SEEDS or not all(map(len, inputs.values())):
            return False
        self.seeds.append(first_row(inputs))
        return not self.waiting and len(self.seeds) in _ATTEMPTS


class RowProver:
    """Proves in a thread of its own. Belongs to the event loop but for that thread.

    Args:
        asked: What has to be proved.
    """

    def __init__(self, asked: Proof) -> None:
        self._asked = asked
        self._claims: weakref.WeakKeyDictionary[Model, dict[Any, Claim]] = weakref.WeakKeyDictionary()
        self._jobs: queue.SimpleQueue[Claim | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def sizes(
        self, model: Model, name: str, signature: Signature, outputs: tuple[str, ...], inputs: Arrays
    ) -> tuple[int, ...]:
        """Return the sizes of calls that requests like this one may share; a proof is begun where there is none.

        Args:
            model: The version.
            name: The model's name.
            signature: What is asked.
            outputs: Outputs that are asked for.
            inputs: The request's arrays, whose first dimension counts samples.
        """
        claims = self._claims.get(model)
        if claims is None:
            claims = self._claims[model] = {}
        shapes = {input_name: inputs[input_name].shape[1:] for input_name in signature.inputs}
        key = (signature.name, outputs, tuple(shapes.values()))
        claim = claims.get(key)
        if claim is None:
            if len(claims) >= MOST_PROOFS:
                return ()
            claim = claims[key] = Claim(weakref.ref(model), name, signature, outputs, shapes)
        if claim.wants_seeds and claim.offer(inputs):
            self._begin(claim)
        return claim.sizes

    def close(self) -> None:
        """Begin no further proof, and wait for none."""
        self._closed = True
        self._jobs.put(None)

    def _begin(self, claim: Claim) -> None:
        claim.waiting = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="proofs", daemon=True)
            self._thread.start()
        self._jobs.put(claim)

    def _work(self) -> None:
        lower_priority()
        while (claim := self._jobs.get()) is not None and not self._closed:
            model = claim.model()
            if model is not None:
                try:
                    self._settle(claim, model)
                except ServingError:  # it is not served any more
                    claim.wants_seeds = False
                except Exception:
                    logger.exception(
                        "trying signature %s of %s failed; requests run alone", claim.signature.name, claim.name
                    )
                    claim.wants_seeds = False
            claim.waiting = False
            del model, claim

    def _settle(self, claim: Claim, model: Model) -> None:
        kept = KeptProofs.of(model)
        proof = kept.find(claim.key)
        if proof is None:
            seeds = [*_recorded(model, claim), *list(claim.seeds)]
            proof = prove(
                lambda inputs: model.run(claim.signature, inputs, claim.outputs), claim.signature, claim.shapes, seeds
            )
            if proof.rounded and (reason := model.reason_rows_mix(claim.signature, claim.outputs, claim.shapes)):
                proof = RowProof(reason=f"{reason}, whatever was seen with the samples that were tried")
            if not proof.unanswered:
                kept.add(claim.key, proof)
        attempts_left = proof.unanswered and len(claim.seeds) < _MOST_SEEDS
        claim.wants_seeds = attempts_left
        if not attempts_left:
            claim.seeds.clear()
        claim.sizes = proof.sizes(rounded=self._asked is not Proof.EXACT)
        self._tell(claim, proof)

    def _tell(self, claim: Claim, proof: RowProof) -> None:
        what = f"signature {claim.signature.name} of {getattr(claim.model(), 'path', None) or claim.name}"
        hint = _HINT if proof.rounded else ""
        if claim.sizes:
            because = f" ({proof.reason})" if proof.reason else ""
            logger.info(
                "Samples of %s do not depend on each other: up to %d share a call%s", what, claim.sizes[-1], because
            )
        elif self._asked is Proof.WARN:
            logger.warning(
                "Requests for %s share calls as the batching parameters say, unproved: %s", what, proof.reason
            )
        else:
            logger.info("Requests for %s run alone: %s%s", what, proof.reason, hint)


_HINT = ". The last bits alone differ; --batch_rounded lets requests share calls all the same"


def _recorded(model: Model, claim: Claim) -> Iterator[Row]:
    """Yield samples from the version's warm-up requests, of the same shapes."""
    path = getattr(model, "path", None)
    if path is None:
        return
    with contextlib.suppress(ServingError, OSError):
        for name, inputs in recorded_inputs(model, path):
            if name == claim.signature.name or inputs.keys() == claim.signature.inputs.keys():
                for number in range(min((len(array) if array.ndim else 0) for array in inputs.values())):
                    row = {key: array[number : number + 1] for key, array in inputs.items()}
                    if all(array.shape[1:] == claim.shapes[key] for key, array in row.items()):
                        yield row


@dataclasses.dataclass
class KeptProofs:
    """The proofs in a version's folder; in memory alone where that cannot be written."""

    file: Path | None
    version: str
    engine: str
    proofs: dict[str, Any]

    @classmethod
    def of(cls, model: Model) -> KeptProofs:
        """Read what is kept of a version; what is of other content, or of another engine, counts for nothing."""
        path, engine = getattr(model, "path", None), getattr(model, "engine", "")
        if path is None or not engine or not Path(path).is_dir():
            return cls(None, "", engine, {})
        file, version = Path(path) / PROOF_FILE, _checksum(Path(path))
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            if [kept[name] for name in ("format", "version", "engine")] == [FORMAT, version, engine]:
                return cls(file, version, engine, dict(kept["proofs"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return cls(file, version, engine, {})

    def find(self, key: str) -> RowProof | None:
        """Return the proof of a claim."""
        try:
            kept = self.proofs[key]
            return RowProof(tuple(map(int, kept["exact"])), tuple(map(int, kept["rounded"])), str(kept["reason"]))
        except (KeyError, TypeError, ValueError):
            return None

    def add(self, key: str, proof: RowProof) -> None:
        """Keep a proof, if that can be done."""
        self.proofs[key] = {"exact": proof.exact, "rounded": proof.rounded, "reason": proof.reason}
        if self.file is None or _checksum(self.file.parent.parent) != self.version:  # somebody writes there
            return
        content = {"format": FORMAT, "version": self.version, "engine": self.engine, "proofs": self.proofs}
        try:
            self.file.parent.mkdir(exist_ok=True)
            atomic.write_json(self.file, content, sync=False)
        except OSError as error:
            logger.debug("%s cannot be kept: %s", self.file, error)


def _checksum(path: Path) -> str:
    """Return a checksum of all that a version computes with: names and contents of its files, but for extra ones."""
    whole = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(set(folders) - {"assets.extra"})
        for name in sorted(files):
            file = Path(folder, name)
            with contextlib.suppress(OSError):
                whole.update(os.fsencode(f"{file.relative_to(path)}\0{file_digest(file)}\0"))
    return whole.hexdigest()
