"""A `tf.data` pipeline as a feed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.compat.tensorflow import iterator_state, restore_iterator_state
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.augmentation import augmented_batch, augmented_batches
from experiments_manager.training.feeds.feed import BY_CHANCE, Feed, require_batches
from experiments_manager.training.feeds.pipeline_probe import (
    BATCHES,
    can_be_saved,
    differ,
    draws_from_host,
    read,
    read_watching_host,
    start_of,
)
from experiments_manager.training.feeds.pipelines import (
    has_state_outside,
    held_bytes,
    held_data,
    irreproducible_operation,
    is_drawn_at_opening,
    is_random,
    python_of,
    reads_ahead,
    runs_python_in_parallel,
    unsaved_node,
    without_endless_repeat,
)
from experiments_manager.training.seeds import host_random_state, restore_host_random_state

REPLAYED_BATCHES = 64
"""Batches that a resume may run through again where passes are so short that building costs more than reading."""
REPLAYED_BATCHES_FROM_MEMORY = 4096
"""The same for pipelines over arrays in memory, which are quick to read and, as the hook loads them, slow to build."""
ARRAYS_IN_MEMORY = 2**20
"""Bytes from which a pipeline's source is taken for data; below, it is a list of files or the like."""


class StreamFeed(Feed):
    """A `tf.data.Dataset` that comes in batches.

    The pipeline is built again for each pass through it, after reseeding with `(seed, pass)`: so the order of a pass
    follows from these two numbers, however the process came there. (Reusing one dataset object alone would not do: the
    state from which it reshuffles cannot be put back.) Inside a pass the iterator itself is saved where TensorFlow
    can save it exactly; otherwise, and where saving fails in the course of a run, a resume skips the batches of the
    current pass that were seen. Where building would take long against reading, several passes share one build; a
    resume then runs through those of them that came before, which `REPLAYED_BATCHES` and `REPLAYED_BATCHES_FROM_MEMORY`
    bound.

    Without `steps_per_epoch` an epoch is a pass. With it, the pass goes on over the epochs' ends, and a new one begins
    where the data ends; only a pipeline that is not known to end, and that cannot be saved, begins again with
    each epoch.

    Every validation begins at the first batch and comes in the same order, as epochs are compared by it.
    """

    batches_can_be_held = True

    def __init__(
        self,
        dataset: tf.data.Dataset,
        build: Callable[[int], Any],
        *,
        split: str,
        seed: int,
        steps_per_epoch: int | None = None,
        likely_steps: int | None = None,
        augment: Callable[..., Any] | None = None,
        rebuild: bool = True,
        varies: bool = False,
    ) -> None:
        self.split = split
        self._hook, self._rebuild = build, rebuild
        self._seed, self._augment = seed, augment
        self._augmented = tf.function(augmented_batch(augment), autograph=False)  # traced for all passes once
        if int(dataset.cardinality()) < 0:
            steps_per_epoch = steps_per_epoch or likely_steps
        # An endless repetition at the end is made here, pass by pass, since the beginning of a pass can be found again.
        self._strip = steps_per_epoch is not None and split == "train"
        self._dataset = self._one_pass(dataset)
        self.spec = self._prepared(self._dataset, 0).element_spec
        self._random = varies or is_random(self._dataset)
        self._first: list[Any] = []
        self._generators: list[str] = []
        self._shown: tf.data.Dataset | None = self._dataset
        self.irreproducible, self._hidden = irreproducible_operation(self._prepared(dataset, 0)), False
        """What makes that no two runs are equal, in words; or `None`."""
        self.draws_from_host = self._keeps_drawing = False
        """Whether reading it draws from Python's or NumPy's global generators."""
        sees_outside = has_state_outside(self._prepared(self._dataset, 0))
        self.takes_ahead = not sees_outside or reads_ahead(self._prepared(self._dataset, 0))
        if sees_outside:
            self._look_twice()
        self._saveable, self._saving_failed = self._can_be_saved(self._prepared(self._dataset, 0)), False

        length = int(self._dataset.cardinality())
        never_ends = tf.data.INFINITE_CARDINALITY in (length, int(dataset.cardinality()))
        self._refuse(length, never_ends, steps_per_epoch)
        length = length if length > 0 else None
        self.steps = steps_per_epoch if never_ends or length is None else min(steps_per_epoch or length, length)
        # A place in a pass that is not saved is found by counting, if the pass ends; else each epoch begins again.
        findable = self._saveable or length is not None or self._dataset is not dataset
        self.goes_on = split == "train" and self.steps not in (None, length) and findable
        self._counted = length is not None and not self.goes_on
        plain = self._counted and augment is None and self.steps == length
        share = plain and self._random and rebuild and not varies and self._saveable and split == "train"
        in_memory = held_bytes(self._dataset) >= ARRAYS_IN_MEMORY
        replayed = REPLAYED_BATCHES_FROM_MEMORY if in_memory else REPLAYED_BATCHES
        self._passes_per_build = max(1, replayed // self.steps) if share else 1
        # Making and clearing away an iterator may take longer than a short pass: one runs through many, if it may.
        self._lasts = plain and (self._passes_per_build > 1 or not self._random)
        # What a shuffle draws from is in the state of an iterator that has read nothing, so none is built again for it.
        begins_alike = split != "train" and not varies and self._saveable and is_drawn_at_opening(self._dataset)
        self._start = start_of(self._dataset) if begins_alike else None
        self._pass, self._taken, self._iterator, self._is_open, self._drew = -1, 0, None, False, False

    def _look_twice(self) -> None:
        """Read the beginning of two passes from the same seed, which differ where a state is not set again with it."""
        dataset = self._prepared(self._dataset, 0)
        first, more, self.draws_from_host, self._keeps_drawing = read_watching_host(dataset)
        if self.irreproducible is None and self.draws_from_host and runs_python_in_parallel(dataset):
            self.irreproducible = "Python that draws random numbers in several threads"
        self._hidden = differ(first + more, self.beginning())
        if self._augment is None:
            self._first = first

    def _can_be_saved(self, dataset: tf.data.Dataset) -> bool:
        """Return whether the place is in the iterator; a validation begins again after each interruption."""
        return can_be_saved(dataset) if self.split == "train" else unsaved_node(dataset) is None

    def built_with(self, generators: Sequence[str]) -> None:
        """Take note of the generators that the hook draws from, of the user's modules, which reseeding leaves alone."""
        if self._random and self._rebuild:
            self._generators = list(generators)

    def beginning(self) -> list[Any]:
        """Read some batches of the first pass, as if the run began."""
        dataset = self._one_pass(self._hook(0)) if self._rebuild else self._dataset
        return read(iter(self._prepared(dataset, 0)), BATCHES)

    def _refuse(self, length: int, never_ends: bool, steps_per_epoch: int | None) -> None:
        require_batches(length if length == 0 else None, self.split)
        if never_ends and steps_per_epoch is None:
            setting = "steps_per_epoch" if self.split == "train" else "validation_steps"
            raise DataError(
                f"dataset: the {self.split} pipeline never ends. Expected a number of batches for an epoch, got none. "
                f"Set `{setting}`, or remove `.repeat()`."
            )

    @property
    def kind(self) -> str:
        """What a resume makes of the position; a key of `POSITIONS`."""
        if self.irreproducible is not None:
            return "irreproducible"
        if self._hidden or self._generators or self._reshuffles:
            return "inexact"
        return "saved iterator" if self._saves_iterator else "replayed"

    @property
    def inexact_reasons(self) -> list[str]:
        """Why a resume does not find exactly the same data; nothing where it does."""
        if self.irreproducible is not None:
            return [f"the {self.split} data: it has {self.irreproducible}, which is not reproducible"]
        in_parallel = runs_python_in_parallel(self._prepared(self._dataset, 0))
        reasons = []
        if self._hidden:
            why = " from several threads (`num_parallel_calls`)" if in_parallel else ""
            reasons.append(f"two passes from the same seed differ: it calls Python{why} that keeps a state")
        reasons += [
            f"`dataset` draws from {name}, whose state carries over: create it inside the hook, from its `seed`"
            for name in self._generators
        ]
        if self._reshuffles:
            reasons.append("it shuffles or draws random numbers, and `rebuild_dataset = False`")
        if not reasons and in_parallel:
            reasons.append(
                "it calls Python from several threads (`num_parallel_calls`), which is exact only if that keeps no "
                "state; `tf.numpy_function(…, stateful=False)` says that it keeps none"
            )
        return [f"the {self.split} data: {reason}" for reason in reasons]

    @property
    def python(self) -> list[Any]:
        """What of the user's is called while the data is read."""
        return python_of(self._prepared(self._dataset, 0))

    @property
    def calls_hook(self) -> bool:
        """Whether the `dataset` hook is called again for later passes."""
        return self._random and self._rebuild

    @property
    def _reshuffles(self) -> bool:
        """Whether a pass follows from those before it, as the pipeline is not built again."""
        return self._random and not self._rebuild and self._start is None

    @property
    def _saves_iterator(self) -> bool:
        return self._saveable and self._passes_per_build == 1 and not self._saving_failed

    def open(self, epoch: int, step: int = 0) -> Any:
        """Return the iterator of the epoch: a new pass, or the one that goes on."""
        if not self._is_open:
            self.next_pass(None if self.goes_on else epoch)
        return self._iterator

    def next_pass(self, number: int | None = None) -> Any:
        """Begin a new pass and return its iterator."""
        self._begin(self._pass + 1 if number is None else number)
        return self._iterator

    def _begin(self, number: int, skip: int = 0) -> None:
        self.opens_pass()
        build, before = divmod(number, self._passes_per_build)
        comes_next = self._iterator is not None and number == self._pass + 1 and (before > 0 or not self._random)
        self._pass, self._taken, self._is_open = number, skip, True
        if self._lasts and comes_next:
            return
        if self._random and self._rebuild and self._start is None:  # a second iterator shuffles in another order
            self._dataset, self._shown = self._one_pass(self._hook(build)), None
        if self._passes_per_build > 1:
            skip += before * self.steps  # shuffles draw from where the pass before left them
        self._iterator = self._new_iterator(skip)

    def _one_pass(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return without_endless_repeat(dataset) if self._strip else dataset

    def _new_iterator(self, skip: int) -> Any:
        passes = self._passes_per_build if self._random else None
        dataset = self._dataset.repeat(passes) if self._lasts else self._prepared(self._dataset, self._pass)
        iterator = iter(dataset)
        if self._start is not None:
            restore_iterator_state(iterator, self._start)
        for _ in range(min(skip, 1)):
            next(iterator, None)
        _, self._drew = draws_from_host(lambda: [next(iterator, None) for _ in range(skip - 1)])
        return iterator

    def close_epoch(self) -> None:
        """End the pass too, where epochs and pass are the same."""
        if self.goes_on:
            return
        if not self._lasts or self._taken != self.steps:
            self._iterator = None
        self._taken, self._is_open = 0, False

    def close(self) -> None:
        """Let go of the iterator; at the end of the process its threads could no longer call Python, and it waits."""
        self._iterator, self._is_open = None, False

    def as_dataset(self) -> tf.data.Dataset:
        """Return the pipeline as the hook returned it, not the training's, whose next order reading would change."""
        if not self._random or not self._rebuild:
            return self._dataset
        if self._shown is None:
            state = host_random_state()
            self._shown = self._one_pass(self._hook(0))
            restore_host_random_state(state)
        return self._shown

    def _prepared(self, dataset: Any, number: int) -> tf.data.Dataset:
        if self._augment is None:
            return dataset
        return augmented_batches(dataset, self._augmented, self._seed, number).prefetch(2)

    def took(self, batches: int) -> None:
        """Note that so many batches of the pass were trained on."""
        self._taken += batches

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: the next batch; where their number is not known, an optional that is empty at the end."""
        return source.get_next() if self._counted else source.get_next_as_optional()

    def sample_batch(self) -> Any:
        """Return a first batch, for building the model and for looking at shapes; read once."""
        if not self._first:
            self._first = list(self.as_dataset().take(1))
        if not self._first:
            raise DataError(
                f"dataset: the {self.split} pipeline gives no batch. Expected at least one, got none. "
                f'Look at what `dataset("{self.split}")` returns.'
            )
        return self._first[0]

    def content(self) -> dict[str, Any]:
        """Return the first batch, the arrays that the pipeline holds in memory, and the files that it names."""
        if self.kind in BY_CHANCE:
            return {}
        held, files = held_data(self._dataset)
        return {**super().content(), **held, **({"files": files} if files else {})}

    def position(self) -> dict[str, Any]:
        """Return the pass, and the batches of it that were trained on."""
        return {"pass": self._pass, "taken": self._taken}

    def save(self) -> tuple[tf.Tensor | None, str | None]:
        """Copy the iterator, with its shuffle buffer, where TensorFlow can; where it cannot, the count has to do.

        Returns:
            The copy, and what is to be said where there is none although it had seemed so.
        """
        if not self._saves_iterator or not self._taken:
            return None, None
        try:
            return iterator_state(self._iterator), None
        except (tf.errors.OpError, ValueError) as failure:
            error = failure
        self._saving_failed = True
        return None, (
            f"The iterator of the {self.split} data cannot be saved: {reason(error)}. From here on its position is "
            "counted, and a resume builds the pipeline again from its seed and skips what was seen."
        )

    def restore(self, position: dict[str, Any], prefix: Path) -> bool:
        """Go back to a saved position, without replaying the data where the iterator was saved."""
        number, taken = position["pass"], position["taken"]
        self._iterator, self._is_open = None, False
        if not self.goes_on and not taken:
            return False  # between two epochs: the next one opens a new pass
        is_saved = Path(f"{prefix}.index").exists()
        self._begin(number, skip=0 if is_saved else taken)
        if is_saved:
            tf.train.Checkpoint(iterator=self._iterator).read(str(prefix)).assert_consumed()
        self._taken = taken
        return taken > 0 and not is_saved and (self._keeps_drawing or self._drew)
