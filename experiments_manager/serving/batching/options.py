"""How requests are batched: TensorFlow Serving's batching parameters."""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import Any

from experiments_manager.protocol.status import invalid_argument


class Proof(enum.Enum):
    """What is asked of a model before requests for it share calls; see `row_proof`."""

    NOT_ASKED = "not asked"
    WARN = "warn"
    """Nothing, but a warning is logged where its samples depend on each other."""
    ROUNDED = "rounded"
    """That its samples do not depend on each other; the last bits of answers may follow from the size of the call."""
    EXACT = "exact"
    """That each sample has the answer that it has alone, bit for bit."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's batching parameters.

    Attributes:
        max_batch_size: Most samples in a batch; a request with more is refused, unless `split_large_batches`.
        batch_timeout_micros: Longest time, in microseconds, that a request waits for company while the model is busy
            and a thread is free; 0 lets it wait until the model is free. A model that is idle is never waited for.
        max_enqueued_batches: Batches that may wait, for each queue (model, signature, outputs, and shape of the samples
            unless these are padded); beyond, RESOURCE_EXHAUSTED.
        num_batch_threads: Batches that run at the same time; so many of quick models run besides.
        allowed_batch_sizes: Batches are filled up to the next of these, by repeating a sample; the last one must be
            `max_batch_size`. Empty for any size.
        pad_variable_length_inputs: Puts samples of different shapes into one batch, each request's padded at the end of
            each dimension with its first value, as in TensorFlow Serving; else only samples of one shape share a batch.
        split_large_batches: Runs a request of more than `max_batch_size` samples in several batches.
        proof: What is asked of a model before; where it is `ROUNDED` or `EXACT`, batches have sizes that are proved,
            and requests of other sizes run alone and whole.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    split_large_batches: bool = False
    proof: Proof = Proof.NOT_ASKED

    @classmethod
    def from_proto(cls, parameters: Any) -> BatchingOptions:
        """Read a `BatchingParameters` message; fields that are not set keep their defaults.

        Raises:
            ServingError: INVALID_ARGUMENT for values that make no sense together.
        """
        given: dict[str, Any] = {}
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
            if parameters.HasField(name):
                given[name] = getattr(parameters, name).value
        if parameters.HasField("enable_large_batch_splitting"):
            given["split_large_batches"] = parameters.enable_large_batch_splitting.value
        largest = given.get("max_batch_size", cls.max_batch_size)
        if parameters.HasField("max_execution_batch_size") and given.get("split_large_batches"):
            given["max_batch_size"] = parameters.max_execution_batch_size.value
        if given.get("max_enqueued_batches") == 0 and not given.get("split_large_batches"):
            given["max_enqueued_batches"] = 1  # as in TensorFlow Serving, for old files
        options = cls(
            **given,
            allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
            pad_variable_length_inputs=parameters.pad_variable_length_inputs,
            proof=Proof.WARN,
        )
        options.check(largest)
        return options

    def check(self, largest: int) -> None:
        """Look whether the values make sense.

        Args:
            largest: Samples of the largest request, which `allowed_batch_sizes` may end with too.

        Raises:
            ServingError: INVALID_ARGUMENT, for one that does not.
        """
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise invalid_argument(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise invalid_argument(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        sizes = self.allowed_batch_sizes
        if any(size <= 0 or size <= before for before, size in zip((0, *sizes), sizes, strict=False)):
            raise invalid_argument(f"allowed_batch_sizes entries must be monotonically increasing; were {list(sizes)}")
        if sizes and sizes[-1] not in (self.max_batch_size, largest):
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; "
                f"expected {largest}"
            )

    @property
    def needs_proof(self) -> bool:
        """Whether batches need a proof."""
        return self.proof in (Proof.ROUNDED, Proof.EXACT)

    def padded(self, samples: int) -> int:
        """Return the number of samples that a batch is filled up to."""
        return next((size for size in self.allowed_batch_sizes if size >= samples), samples)
