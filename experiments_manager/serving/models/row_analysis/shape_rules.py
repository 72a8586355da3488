"""Rules for operations that put numbers in other places: shapes, axes, parts, and tensors beside each other.

See `row_rules`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from experiments_manager.serving.models.row_analysis.flow import (
    FREE,
    UNIFORM,
    Flow,
    GraphOperation,
    Kind,
    has_blocks,
    rows_along,
)


def repeated(operation: GraphOperation) -> Flow:
    """A tensor that is the same in every call, repeated for each sample."""
    operation.need(1, sizes=True)
    given, out = operation.shape(0), operation.out()
    given = [1] * (len(out) - len(given)) + given
    for axis, before in enumerate(given):
        if before == 1 and has_blocks(operation.outputs[0].shape, axis, operation.count):
            return rows_along(axis)
    raise operation.stop()


def _reshape(operation: GraphOperation) -> Flow:
    """Blocks of samples that lie one after the other stay so where as many numbers are before them as were."""
    operation.need(1, sizes=True)
    if operation.flow(0).kind is Kind.UNIFORM:
        return UNIFORM
    axis, given, out = operation.axis(), operation.shape(0), operation.out()
    if None in given or None in out:
        raise operation.stop("makes a shape that is not known")
    before = math.prod(given[:axis])
    for place, size in enumerate(out):
        if math.prod(out[:place]) == before and size % operation.count == 0 and size:
            return rows_along(place)
    raise operation.stop("puts numbers of several samples in one row")


def _transpose(operation: GraphOperation) -> Flow:
    operation.need(1)
    return rows_along(operation.axes(1, len(operation.shape(0))).index(operation.axis()))


def _expand_dims(operation: GraphOperation) -> Flow:
    operation.need(1)
    if operation.flow(0).kind is Kind.UNIFORM:
        return UNIFORM
    [place] = operation.axes(1, len(operation.out()))
    return rows_along(operation.axis() + (place <= operation.axis()))


def _squeeze(operation: GraphOperation) -> Flow:
    given, axis = operation.shape(0), operation.axis()
    named = [place + len(given) if place < 0 else place for place in operation.attr("squeeze_dims").list.i]
    gone = named or [place for place, size in enumerate(given) if size == 1]
    if axis in gone or (not named and None in given):
        raise operation.stop()
    return rows_along(axis - sum(place < axis for place in gone))


def _whole_along(operation: GraphOperation) -> Flow:
    """What is as long as before along the samples, of a part that begins somewhere, has all of them in their order."""
    operation.need(*range(1, len(operation.inputs)), sizes=True)
    axis = operation.axis()
    if operation.shape(0)[axis] is None or any(
        tensor.shape.rank is None or tensor.shape.as_list()[axis] != operation.shape(0)[axis]
        for tensor in operation.outputs
    ):
        raise operation.stop("takes some of the samples")
    return rows_along(axis)


def _split_v(operation: GraphOperation) -> Flow:
    swapped = operation.node.op == "Split"
    order = [1, 0] if swapped else [0, 1, 2]
    return _whole_along(dataclasses.replace(operation, inputs=[operation.inputs[place] for place in order]))


def _broadcast_to(operation: GraphOperation) -> Flow:
    operation.need(1, sizes=True)
    axis = operation.axis() + len(operation.out()) - len(operation.shape(0))
    if operation.out()[axis] != operation.shape(0)[operation.axis()]:
        raise operation.stop()
    return rows_along(axis)


def _padding(operation: GraphOperation) -> Flow:
    operation.need(*range(1, len(operation.inputs)))
    axis, paddings = operation.axis(), operation.constants(1)
    if paddings[2 * axis : 2 * axis + 2] != [0, 0]:
        raise operation.stop("adds samples")
    return rows_along(axis)


def _strided_slice(operation: GraphOperation) -> Flow:
    operation.need(1, 2, 3, sizes=True)
    rows, rank = operation.axis(), len(operation.shape(0))
    steps = operation.constants(3)
    new, whole, gone = (operation.attr(f"{name}_mask").i for name in ("new_axis", "ellipsis", "shrink_axis"))
    axis = out = 0
    for place, step in enumerate(steps):
        bit = 1 << place
        if whole & bit:
            later = sum(not new & (1 << other) for other in range(place + 1, len(steps)))
            skipped = rank - later - axis
            if axis <= rows < axis + skipped:
                return rows_along(out + rows - axis)
            axis, out = axis + skipped, out + skipped
        elif new & bit:
            out += 1
        else:
            if axis == rows:
                if gone & bit or step != 1 or operation.out()[out] != operation.shape(0)[rows]:
                    raise operation.stop("takes some of the samples")
                return rows_along(out)
            axis, out = axis + 1, out + (not gone & bit)
    return rows_along(out + rows - axis)


def _concatenate(operation: GraphOperation) -> Flow:
    *data, last = range(len(operation.inputs))
    [along] = operation.axes(last, len(operation.out()))
    operation.need(last)
    return _side_by_side(operation, data, along)


def _side_by_side(operation: GraphOperation, data: Sequence[int], along: int | None) -> Flow:
    """Tensors that are put beside each other have the samples along the same axis, which is another one."""
    rows = [place for place in data if operation.flow(place).kind is Kind.ROWS] or list(data)[:1]
    axis = operation.axis(rows[0])
    for place in data:
        flow = operation.flow(place)
        uniform = flow.kind is Kind.UNIFORM and has_blocks(operation.inputs[place][0].shape, axis, operation.count)
        if not (uniform or flow == rows_along(axis)) or along == axis:
            raise operation.stop("puts samples together with others")
    return rows_along(axis)


def _pack(operation: GraphOperation) -> Flow:
    axis = _side_by_side(operation, range(len(operation.inputs)), None).axis
    place = operation.attr("axis").i
    place += len(operation.out()) if place < 0 else 0
    return rows_along(axis + (place <= axis))


def _unpack(operation: GraphOperation) -> Flow:
    axis, place = operation.axis(), operation.attr("axis").i
    place += len(operation.shape(0)) if place < 0 else 0
    if axis == place:
        raise operation.stop("takes some of the samples")
    return rows_along(axis - (place < axis))


def _gather(operation: GraphOperation) -> Flow:
    """Indices of samples into a table, or the same indices into each sample."""
    [along] = operation.axes(2, len(operation.shape(0))) if len(operation.inputs) > 2 else [0]
    batch = operation.attr("batch_dims").i
    if len(operation.inputs) > 2:
        operation.need(2)
    if operation.has_rows(0) and operation.has_rows(1):
        axis = operation.axis(0)
        if axis < batch and operation.axis(1) == axis:
            return rows_along(axis)
        raise operation.stop("takes numbers of other samples")
    if operation.has_rows(0):
        operation.need(1)
        axis = operation.axis(0)
        if batch or axis == along:
            raise operation.stop("takes some of the samples")
        return rows_along(axis if axis < along else axis + len(operation.shape(1)) - 1)
    operation.need(0)
    if batch:
        raise operation.stop()
    return rows_along(along + operation.axis(1))


def _resource_gather(operation: GraphOperation) -> Flow:
    operation.need(0)
    if operation.attr("batch_dims").i:
        raise operation.stop()
    return rows_along(operation.axis(1))


def _reverse_sequence(operation: GraphOperation) -> Flow:
    axis = operation.axis()
    sequence, batch = operation.attr("seq_dim").i, operation.attr("batch_dim").i
    lengths = operation.flow(1)
    if axis == sequence or not (lengths == FREE or (lengths == rows_along(0) and batch == axis)):
        raise operation.stop("takes numbers of other samples")
    if lengths == FREE and batch == axis:
        raise operation.stop()
    return rows_along(axis)


SHAPE_RULES: dict[str, Callable[[GraphOperation], Flow]] = {
    "Reshape": _reshape,
    "Transpose": _transpose,
    "ExpandDims": _expand_dims,
    "Squeeze": _squeeze,
    "Slice|Tile": _whole_along,
    "Split|SplitV": _split_v,
    "BroadcastTo": _broadcast_to,
    "Pad(V2)?|MirrorPad": _padding,
    "StridedSlice": _strided_slice,
    "ConcatV2": _concatenate,
    "Pack": _pack,
    "Unpack": _unpack,
    "Gather(V2)?": _gather,
    "ResourceGather": _resource_gather,
    "ReverseSequence": _reverse_sequence,
}
"""By patterns of kinds of operation."""
