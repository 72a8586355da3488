"""Where the samples of a call are in a tensor, and what an operation on such tensors looks like to the rules."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import tensorflow as tf


class MixesRows(Exception):
    """An operation is not known to keep samples apart; the message says which."""


class Kind(enum.Enum):
    """How a tensor depends on the samples of a call."""

    FREE = "the same in every call"
    SHAPE = "sizes of a tensor, the number of samples perhaps among them"
    COUNTED = "depends on the number of samples"
    UNIFORM = "one value all over; its sizes may depend on the number of samples"
    ROWS = "along one axis in equal blocks, one after the other, of which each depends on one sample"
    LIST = "a list of tensors of one kind"


@dataclasses.dataclass(frozen=True)
class Flow:
    """Where the samples are in a tensor.

    Attributes:
        kind: How it depends on them.
        axis: The axis along which they are, of `ROWS`.
        item: What is in a `LIST`; `None` while that is empty.
        shape: The shape of each tensor in it.
        length: Their number, where it is known.
    """

    kind: Kind
    axis: int = -1
    item: Flow | None = None
    shape: tuple[int | None, ...] | None = None
    length: int | None = None


FREE, SHAPE, COUNTED, UNIFORM = Flow(Kind.FREE), Flow(Kind.SHAPE), Flow(Kind.COUNTED), Flow(Kind.UNIFORM)
SIZES = (FREE, SHAPE, COUNTED)
"""What may be given as a shape."""
Value = tuple[tf.Tensor, Flow]


def rows_along(axis: int) -> Flow:
    """Return that samples are along this axis."""
    return Flow(Kind.ROWS, axis)


def joined(one: Flow, other: Flow, shape: tf.TensorShape, count: int) -> Flow:
    """Return what holds for a tensor that is one or the other.

    Raises:
        MixesRows: Nothing is known to hold for both.
    """
    if one == other:
        return one
    if one.kind is other.kind is Kind.LIST:
        if one.item is None or other.item is None:
            return other if one.item is None else one
        shapes = one.shape if one.shape == other.shape else None
        if shapes is not None:
            item = joined(one.item, other.item, tf.TensorShape(shapes), count)
            return dataclasses.replace(one, item=item, length=one.length if one.length == other.length else None)
    if {one.kind, other.kind} == {Kind.UNIFORM, Kind.ROWS}:
        rows = one if one.kind is Kind.ROWS else other
        if has_blocks(shape, rows.axis, count):
            return rows
    raise MixesRows("its branches or loops treat samples in different ways")


def has_blocks(shape: tf.TensorShape, axis: int, count: int) -> bool:
    """Return whether a tensor has as many rows along an axis for each of so many samples."""
    size = shape[axis] if shape.rank is not None and 0 <= axis < shape.rank else None
    return bool(size) and size % count == 0


@dataclasses.dataclass
class GraphOperation:
    """One operation, built for calls of so many samples.

    Attributes:
        node: Its `NodeDef`, with all attributes.
        inputs: Its inputs, and where the samples are in them.
        outputs: The tensors that it gives.
        count: The number of samples.
        sizes: Where sizes are noted that are taken not to depend on that number.
        name: What the model calls it.
    """

    node: Any
    inputs: list[Value]
    outputs: list[tf.Tensor]
    count: int
    sizes: list[int]
    name: str

    def stop(self, why: str = "is not known to keep samples apart") -> MixesRows:
        """Return what is raised where it may mix samples."""
        return MixesRows(f"its operation {self.node.op} ({self.name[-80:]}) {why}")

    def shape(self, place: int) -> list[int | None]:
        """Return the sizes of an input."""
        return self._list(self.inputs[place][0])

    def out(self, place: int = 0) -> list[int | None]:
        """Return the sizes of an output."""
        return self._list(self.outputs[place])

    def _list(self, tensor: tf.Tensor) -> list[int | None]:
        if tensor.shape.rank is None:
            raise self.stop("has an input or output of unknown rank")
        return tensor.shape.as_list()

    def flow(self, place: int) -> Flow:
        """Return where the samples are in an input."""
        return self.inputs[place][1]

    def axis(self, place: int = 0) -> int:
        """Return the axis of the samples in an input."""
        flow = self.flow(place)
        if flow.kind is Kind.ROWS:
            return flow.axis
        if flow.kind is Kind.UNIFORM:
            for axis in range(len(self.shape(place))):
                if has_blocks(self.inputs[place][0].shape, axis, self.count):
                    return axis
        raise self.stop()

    def has_rows(self, place: int) -> bool:
        """Return whether an input may be taken to have samples along an axis."""
        return self.flow(place).kind in (Kind.ROWS, Kind.UNIFORM)

    def need(self, *places: int, sizes: bool = False) -> None:
        """Raise unless these inputs are the same in every call, or sizes, where they may be."""
        for place in places:
            if self.flow(place) not in (SIZES if sizes else (FREE,)):
                raise self.stop()

    def constants(self, place: int) -> list[int]:
        """Return the whole numbers of an input that is a constant."""
        value = tf.get_static_value(self.inputs[place][0])
        if value is None:
            raise self.stop("goes over axes that are not constant")
        return [int(number) for number in value.ravel().tolist()] if hasattr(value, "ravel") else [int(value)]

    def axes(self, place: int, rank: int) -> list[int]:
        """Return such an input as axes of a tensor, counted from 0."""
        return [number + rank if number < 0 else number for number in self.constants(place)]

    def attr(self, name: str) -> Any:
        """Return an attribute, which has its default where the model's author set none."""
        return self.node.attr[name]
