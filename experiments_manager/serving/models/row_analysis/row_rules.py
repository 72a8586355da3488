"""What each kind of operation does with the samples in its tensors, as far as it is known to keep them apart.

A rule looks at shapes and at constants alone, and either tells where the samples are in what the operation gives, or
raises. What has no rule has not been looked at, and is taken to mix them: a new operation is added here, or to
`shape_rules`, with a test. Control edges do not count: they carry no values, and what keeps a state is refused before
(`graph_checks`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from experiments_manager.serving.models.row_analysis.flow import (
    COUNTED,
    FREE,
    SHAPE,
    UNIFORM,
    Flow,
    GraphOperation,
    Kind,
    Value,
    has_blocks,
    joined,
    rows_along,
)
from experiments_manager.serving.models.row_analysis.shape_rules import SHAPE_RULES, repeated


def follow_operation(
    operation: tf.Operation, inputs: list[Value], count: int, sizes: list[int], name: str
) -> list[Value]:
    """Follow the samples of a call through one operation.

    Args:
        operation: The operation, in a graph that was built for so many samples.
        inputs: Its inputs.
        count: The number of samples.
        sizes: Where sizes are noted that are taken not to depend on that number; the caller compares them.
        name: What the model calls it, for messages.

    Raises:
        MixesRows: It is not known to keep samples apart.
    """
    about = GraphOperation(operation.node_def, inputs, list(operation.outputs), count, sizes, name)
    flows = _flows(about)
    for tensor, flow in zip(operation.outputs, flows, strict=True):
        if flow.kind is Kind.ROWS and not has_blocks(tensor.shape, flow.axis, count):
            raise about.stop("makes a shape that is not known")
    return list(zip(operation.outputs, flows, strict=True))


def _flows(operation: GraphOperation) -> list[Flow]:
    kinds = {flow.kind for _, flow in operation.inputs}
    op, outputs = operation.node.op, operation.outputs
    if kinds <= {Kind.FREE} and op not in _LISTS:
        return [FREE] * len(outputs)
    if op in ("Shape", "ShapeN"):
        return [SHAPE if kinds == {Kind.ROWS} else COUNTED] * len(outputs)
    if op == "Size":
        return [COUNTED]
    if op in ("Identity", "IdentityN"):
        return [flow for _, flow in operation.inputs]
    if op == "Rank":
        return [FREE]
    if op in ("ZerosLike", "OnesLike"):
        return [UNIFORM]
    if op == "Fill":
        operation.need(0, sizes=True)
        operation.need(1)
        return [UNIFORM]
    if op == "StridedSlice" and operation.flow(0).kind is Kind.SHAPE:
        return [_picked_size(operation)]
    if op in ("BroadcastTo", "Tile") and operation.flow(0) == FREE:
        return [repeated(operation)]
    if kinds <= {Kind.FREE, Kind.SHAPE, Kind.COUNTED} and op not in _LISTS:
        return [COUNTED] * len(outputs)
    for pattern, rule in _RULES:
        if pattern.fullmatch(op):
            found = rule(operation)
            return found if isinstance(found, list) else [found] * len(outputs)
    raise operation.stop()


def _picked_size(operation: GraphOperation) -> Flow:
    """A size out of a shape is a multiple of the number of samples, or does not depend on it."""
    value = tf.get_static_value(operation.outputs[0])
    if value is None:
        begins, ends = (tf.get_static_value(operation.inputs[place][0]) for place in (1, 2))
        source = operation.inputs[0][0].op
        if source.type != "Shape" or begins is None or ends is None or len(begins) != 1:
            return COUNTED
        sizes = source.inputs[0].shape
        if sizes.rank is None or not operation.attr("shrink_axis_mask").i:
            return COUNTED
        value = sizes[int(begins[0])]
    sizes = [value] if value is None or isinstance(value, int) else value.ravel().tolist()
    if not all(size is not None and size % operation.count for size in sizes):
        return COUNTED
    operation.sizes += sizes
    return FREE


def _elementwise(operation: GraphOperation) -> Flow:
    """Numbers at the same place of all inputs, broadcast to one shape, give the one at that place."""
    kinds = {flow.kind for _, flow in operation.inputs}
    rank = len(operation.out())
    scalars = all(
        flow.kind is Kind.UNIFORM or (flow == FREE and tensor.shape.rank == 0) for tensor, flow in operation.inputs
    )
    if Kind.UNIFORM in kinds and scalars:
        return UNIFORM
    axes = set()
    for place, (_, flow) in enumerate(operation.inputs):
        if flow.kind is Kind.ROWS or (flow.kind is Kind.UNIFORM and Kind.ROWS not in kinds):
            axes.add(operation.axis(place) + rank - len(operation.shape(place)))
    if len(axes) != 1:
        raise operation.stop("puts samples together with others")
    [axis] = axes
    size = operation.out()[axis]
    for place, (_, flow) in enumerate(operation.inputs):
        shape = operation.shape(place)
        own = axis - (rank - len(shape))
        fits = shape[own] == size if flow.kind is Kind.ROWS else own < 0 or shape[own] == 1
        fits = fits or (flow.kind is Kind.UNIFORM and shape[own] == size)
        if flow.kind not in (Kind.FREE, Kind.UNIFORM, Kind.ROWS) or not fits:
            raise operation.stop("puts samples together with others")
    return rows_along(axis)


def _first_is_data(operation: GraphOperation) -> Flow:
    """Samples are along the first axis of the first input; the others are weights or sizes."""
    operation.need(*range(1, len(operation.inputs)), sizes=operation.node.op.startswith("Resize"))
    if operation.axis() != 0:
        raise operation.stop()
    return rows_along(0)


def _transposed_convolution(operation: GraphOperation) -> Flow:
    operation.need(0, sizes=True)
    operation.need(1)
    if operation.axis(2) != 0:
        raise operation.stop()
    return rows_along(0)


def _pooling(operation: GraphOperation) -> Flow:
    for name in ("ksize", "strides"):
        if list(operation.attr(name).list.i)[:1] != [1]:
            raise operation.stop("goes over samples")
    return _first_is_data(operation)


def _batch_norm(operation: GraphOperation) -> list[Flow]:
    if "is_training" not in operation.node.attr or operation.attr("is_training").b:
        raise operation.stop("normalises by all samples of a call")
    rest = len(operation.outputs) - 1
    return [_first_is_data(operation), *[COUNTED] * rest]


def _other_axes(operation: GraphOperation) -> Flow:
    """It goes along the axes that its second input names."""
    operation.need(1)
    axis, rank = operation.axis(), len(operation.shape(0))
    if axis in operation.axes(1, rank):
        raise operation.stop("goes over all samples")
    return rows_along(axis)


def _reduction(operation: GraphOperation) -> Flow:
    axis, rank = _other_axes(operation).axis, len(operation.shape(0))
    if operation.attr("keep_dims").b:
        return rows_along(axis)
    return rows_along(axis - sum(gone < axis for gone in operation.axes(1, rank)))


def _last_axis(operation: GraphOperation) -> Flow:
    operation.need(*range(1, len(operation.inputs)))
    axis = operation.axis()
    if axis == len(operation.shape(0)) - 1:
        raise operation.stop("goes over all samples")
    return rows_along(axis)


def _matrix_product(operation: GraphOperation) -> Flow:
    adjoint = operation.node.op.startswith("Batch")
    names = ("adj_x", "adj_y") if adjoint else ("transpose_a", "transpose_b")
    turned = [operation.attr(name).b for name in names]
    ranks = [len(operation.shape(0)), len(operation.shape(1))]
    rank = len(operation.out())
    axes = set()
    for place in (0, 1):
        if not operation.has_rows(place):
            operation.need(place)
            continue
        axis = operation.axis(place)
        outer = ranks[place] - 2 + (turned[place] if place == 0 else not turned[place])
        if axis == outer:
            axes.add(rank - 2 + place)
        elif axis < ranks[place] - 2:
            axes.add(axis + rank - ranks[place])
        else:
            raise operation.stop("adds up over samples")
    [axis, *more] = axes
    if more:
        raise operation.stop("puts samples together with others")
    for place in (0, 1):
        own = axis - (rank - ranks[place])
        if not operation.has_rows(place) and axis < rank - 2 and own >= 0 and operation.shape(place)[own] != 1:
            raise operation.stop("puts samples together with others")
        if operation.has_rows(place) and axis < rank - 2 and operation.shape(place)[own] != operation.out()[axis]:
            raise operation.stop("puts samples together with others")
        if operation.has_rows(place) and axis >= rank - 2 and operation.has_rows(1 - place):
            raise operation.stop("puts samples together with others")
    return rows_along(axis)


def _einsum(operation: GraphOperation) -> Flow:
    left, _, right = operation.attr("equation").s.decode().replace(" ", "").partition("->")
    terms = left.split(",")
    if "." in left or len(terms) != len(operation.inputs):
        raise operation.stop()
    labels = {terms[place][operation.axis(place)] for place in range(len(terms)) if operation.has_rows(place)}
    free = "".join(terms[place] for place in range(len(terms)) if not operation.has_rows(place))
    operation.need(*(place for place in range(len(terms)) if not operation.has_rows(place)))
    if len(labels) != 1:
        raise operation.stop("puts samples together with others")
    [label] = labels
    if label in free or right.count(label) != 1 or any(term.count(label) > 1 for term in terms):
        raise operation.stop("adds up over samples")
    if any(operation.has_rows(place) and label not in terms[place] for place in range(len(terms))):
        raise operation.stop("puts samples together with others")
    return rows_along(right.index(label))


def _look_up(operation: GraphOperation) -> Flow:
    operation.need(0, 2)
    if operation.inputs[0][0].op.type in ("HashTable", "HashTableV2", "AnonymousHashTable"):
        operation.outputs[0].set_shape(operation.shape(1))  # these hold scalars
    return rows_along(operation.axis(1))


def _one_hot(operation: GraphOperation) -> Flow:
    operation.need(1, 2, 3)
    axis, place = operation.axis(), operation.attr("axis").i
    return rows_along(axis + (0 <= place <= axis))


def _list(operation: GraphOperation) -> Flow:
    """Lists of tensors, as loops over the steps of a series have them."""
    makes = operation.node.op in ("TensorListReserve", "TensorListFromTensor")
    if not makes and operation.flow(0).kind is not Kind.LIST:
        raise operation.stop()
    return _LISTS[operation.node.op](operation)


def _reserved(operation: GraphOperation) -> Flow:
    operation.need(0, 1, sizes=True)
    length = tf.get_static_value(operation.inputs[1][0])
    return Flow(Kind.LIST, length=None if length is None else int(length))


def _list_from_tensor(operation: GraphOperation) -> Flow:
    operation.need(1, sizes=True)
    shape = operation.shape(0)
    if operation.flow(0) == FREE:
        return Flow(Kind.LIST, item=FREE, shape=tuple(shape[1:]), length=shape[0])
    axis = operation.axis()
    if axis == 0:
        raise operation.stop("takes the samples one after the other")
    return Flow(Kind.LIST, item=rows_along(axis - 1), shape=tuple(shape[1:]), length=shape[0])


def _item(operation: GraphOperation) -> Flow:
    operation.need(1)
    operation.need(2, sizes=True)
    known = operation.flow(0)
    if known.item is None:
        raise operation.stop("reads a list that is empty")
    operation.outputs[0].set_shape(known.shape)
    return known.item


def _with_item(operation: GraphOperation) -> Flow:
    operation.need(1)
    known, (tensor, flow) = operation.flow(0), operation.inputs[2]
    if known.kind is not Kind.LIST or flow.kind not in (Kind.FREE, Kind.UNIFORM, Kind.ROWS):
        raise operation.stop()
    one = Flow(Kind.LIST, item=flow, shape=tuple(operation.shape(2)), length=known.length)
    return joined(known, one, tensor.shape, operation.count)


def _stacked(operation: GraphOperation) -> Flow:
    operation.need(1, sizes=True)
    known = operation.flow(0)
    if known.item is None or known.shape is None or known.item.kind is not Kind.ROWS:
        raise operation.stop()
    operation.outputs[0].set_shape([known.length, *known.shape])
    return rows_along(known.item.axis + 1)


def _length(operation: GraphOperation) -> Flow:
    return FREE if operation.flow(0).length is not None else COUNTED


_LISTS: dict[str, Callable[[GraphOperation], Flow]] = {
    "TensorListReserve": _reserved,
    "TensorListFromTensor": _list_from_tensor,
    "TensorListGetItem": _item,
    "TensorListSetItem": _with_item,
    "TensorListStack": _stacked,
    "TensorListLength": _length,
}

_ELEMENTWISE = (
    "Abs|Acosh?|Add(N|V2)?|Angle|AsString|Asinh?|Atan[2h]?|BesselI[01]e?|Betainc|Bitwise(And|Or|Xor)|Bucketize"
    "|Cast|Ceil|CheckNumerics|ClipByValue|Complex(Abs)?|Conj|Cosh?|DecodeBase64|Digamma|Div(NoNan)?|Elu|EncodeBase64"
    "|EnsureShape|Equal|Erfc?|Erfinv|Exp|Expm1|FakeQuantWithMinMax(Args|Vars)|Floor(Div|Mod)?|Greater(Equal)?"
    "|Igammac?|Imag|Inv|Invert|Is(Finite|Inf|Nan)|LeakyRelu|LeftShift|Less(Equal)?|Lgamma|Log|Log1p|Logical(And|Not|Or)"
    "|Maximum|Minimum|Mod|Mul(NoNan)?|Ndtri|Neg|NextAfter|NotEqual|Polygamma|Pow|PreventGradient|Real(Div)?|Reciprocal"
    "|RegexFullMatch|RegexReplace|Relu6?|RightShift|Rint|Round|Rsqrt|SelectV2|Selu|Sigmoid|Sign|Sinh?|Snapshot"
    "|Soft(plus|sign)|Sqrt|Square(dDifference)?|StaticRegex(FullMatch|Replace)|StopGradient|String(Join|Length|Lower|Strip"
    "|ToHashBucket(Fast|Strong)?|ToNumber|Upper)|Sub|Substr|Tanh?|Truncate(Div|Mod)|UnicodeTranscode|Xdivy|Xlog1py|Xlogy"
    "|Zeta"
)
_RULES: tuple[tuple[re.Pattern[str], Callable[[GraphOperation], Any]], ...] = tuple(
    (re.compile(pattern), rule)
    for pattern, rule in (
        (_ELEMENTWISE, _elementwise),
        ("Conv[23]D|DepthwiseConv2dNative|BiasAdd|LRN|Resize(Bilinear|Bicubic|NearestNeighbor|Area)"
         "|ExtractImagePatches|DepthToSpace|SpaceToDepth|RGBToHSV|HSVToRGB|Dilation2D", _first_is_data),
        ("Conv[23]DBackpropInput(V2)?", _transposed_convolution),
        ("(Max|Avg)Pool(3D)?", _pooling),
        ("FusedBatchNorm(V[23])?", _batch_norm),
        ("Sum|Mean|Prod|Max|Min|All|Any|EuclideanNorm|ArgMax|ArgMin", _reduction),
        ("Cumsum|Cumprod|CumulativeLogsumexp|ReverseV2", _other_axes),
        ("Softmax|LogSoftmax|TopK(V2)?|I?R?FFT", _last_axis),
        ("MatMul|BatchMatMul(V[23])?", _matrix_product),
        ("Einsum", _einsum),
        ("LookupTableFind(V2)?", _look_up),
        ("OneHot", _one_hot),
        ("|".join(_LISTS), _list),
        *SHAPE_RULES.items(),
    )
)  # fmt: skip
"""What is known, by kind of operation."""
