"""What Keras 3 offers in the place of functions of TensorFlow that cannot be applied to symbolic Keras tensors."""

from __future__ import annotations

# fmt: off
_SAME_NAME = frozenset({
    "abs", "add", "all", "any", "arange", "argmax", "argmin", "argsort", "average_pool", "batch_normalization",
    "binary_crossentropy", "bincount", "broadcast_to", "cast", "categorical_crossentropy", "ceil", "cholesky", "clip",
    "concatenate", "cond", "conj", "convert_to_tensor", "cos", "cosh", "count_nonzero", "cross", "cumprod", "cumsum",
    "depth_to_space", "det", "divide", "divide_no_nan", "dot", "eig", "eigh", "einsum", "elu", "equal", "erf", "erfinv",
    "exp", "expand_dims", "expm1", "eye", "fft", "floor", "gelu", "greater", "greater_equal", "hard_sigmoid",
    "identity", "imag", "in_top_k", "inv", "irfft", "istft", "leaky_relu", "less", "less_equal", "linspace", "log",
    "log1p", "log_sigmoid", "log_softmax", "logical_and", "logical_not", "logical_or", "logical_xor", "matmul", "max",
    "max_pool", "maximum", "mean", "meshgrid", "min", "minimum", "mod", "moments", "multiply", "ndim", "negative",
    "norm", "not_equal", "one_hot", "ones", "ones_like", "pad", "pinv", "prod", "qr", "real", "reciprocal", "relu",
    "relu6", "repeat", "reshape", "rfft", "roll", "round", "rsqrt", "saturate_cast", "scan", "searchsorted",
    "segment_max", "segment_min", "segment_prod", "segment_sum", "selu", "shape", "sigmoid", "sign", "silu", "sin",
    "sinh", "size", "slice", "softmax", "softplus", "softsign", "solve", "sort", "space_to_depth",
    "sparse_categorical_crossentropy", "split", "sqrt", "square", "squeeze", "stack", "std", "stft", "stop_gradient",
    "subtract", "sum", "svd", "swish", "switch", "take", "tan", "tanh", "tensordot", "tile", "top_k", "trace",
    "transpose", "unique", "unstack", "var", "vectorized_map", "where", "while_loop", "zeros", "zeros_like",
})
# fmt: on
"""Functions that are called the same in `keras.ops`, wherever in TensorFlow they are."""

_OTHER_NAME = {
    "acos": "arccos",
    "acosh": "arccosh",
    "add_n": "sum",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atan2": "arctan2",
    "atanh": "arctanh",
    "avg_pool": "average_pool",
    "avg_pool1d": "average_pool",
    "avg_pool2d": "average_pool",
    "avg_pool3d": "average_pool",
    "batch_dot": "einsum",
    "bias_add": "add",
    "clip_by_value": "clip",
    "concat": "concatenate",
    "constant": "convert_to_tensor",
    "conv1d": "conv",
    "conv2d": "conv",
    "conv3d": "conv",
    "conv1d_transpose": "conv_transpose",
    "conv2d_transpose": "conv_transpose",
    "conv3d_transpose": "conv_transpose",
    "convolution": "conv",
    "depthwise_conv2d": "depthwise_conv",
    "diag_part": "diagonal",
    "embedding_lookup": "take",
    "ensure_shape": "reshape",
    "fill": "full",
    "floordiv": "floor_divide",
    "floormod": "mod",
    "gather": "take",
    "gather_nd": "take",
    "inverse_stft": "istft",
    "is_finite": "isfinite",
    "is_inf": "isinf",
    "is_nan": "isnan",
    "l2_normalize": "normalize",
    "linalg.diag": "diag",
    "map_fn": "map",
    "matrix_transpose": "swapaxes",
    "matvec": "matmul",
    "max_pool1d": "max_pool",
    "max_pool2d": "max_pool",
    "max_pool3d": "max_pool",
    "permute_dimensions": "transpose",
    "pow": "power",
    "range": "arange",
    "rank": "ndim",
    "realdiv": "divide",
    "reduce_all": "all",
    "reduce_any": "any",
    "reduce_logsumexp": "logsumexp",
    "reduce_max": "max",
    "reduce_mean": "mean",
    "reduce_min": "min",
    "reduce_prod": "prod",
    "reduce_std": "std",
    "reduce_sum": "sum",
    "reduce_variance": "var",
    "repeat_elements": "repeat",
    "reverse": "flip",
    "rint": "round",
    "scalar_mul": "multiply",
    "scatter_nd": "scatter",
    "separable_conv2d": "separable_conv",
    "squared_difference": "square",
    "strided_slice": "slice",
    "tensor_diag": "diag",
    "tensor_diag_part": "diagonal",
    "tensor_scatter_nd_update": "scatter_update",
    "truediv": "true_divide",
}
"""Functions that are called otherwise in `keras.ops`."""

_ELSEWHERE = {
    "tensorflow.image.resize": "keras.ops.image.resize",
    "tensorflow.image.rgb_to_grayscale": "keras.ops.image.rgb_to_grayscale",
    "tensorflow.image.rgb_to_hsv": "keras.ops.image.rgb_to_hsv",
    "tensorflow.image.hsv_to_rgb": "keras.ops.image.hsv_to_rgb",
    "tensorflow.image.extract_patches": "keras.ops.image.extract_patches",
    "tensorflow.image.crop_to_bounding_box": "keras.ops.image.crop_images",
    "tensorflow.image.pad_to_bounding_box": "keras.ops.image.pad_images",
    "tensorflow.image.flip_left_right": "keras.ops.flip",
    "tensorflow.image.flip_up_down": "keras.ops.flip",
    "tensorflow.image.sobel_edges": "keras.ops.image.sobel_edges",
    "tensorflow.image.per_image_standardization": "keras.layers.Normalization",
    "tensorflow.nn.dropout": "keras.layers.Dropout",
    "tensorflow.keras.backend.dropout": "keras.layers.Dropout",
    "tensorflow.keras.backend.flatten": "keras.ops.ravel",
    "tensorflow.keras.backend.batch_flatten": "keras.layers.Flatten",
    "tensorflow.keras.backend.resize_images": "keras.ops.image.resize",
    "tensorflow.keras.backend.rnn": "keras.layers.RNN",
    "tensorflow.random.normal": "keras.random.normal",
    "tensorflow.random.uniform": "keras.random.uniform",
    "tensorflow.random.truncated_normal": "keras.random.truncated_normal",
    "tensorflow.random.shuffle": "keras.random.shuffle",
    "tensorflow.random.categorical": "keras.random.categorical",
}
"""Functions, by their full name, whose like is not in `keras.ops` itself."""

TARGETS = frozenset(
    {f"keras.ops.{name}" for name in _SAME_NAME | frozenset(_OTHER_NAME.values())} | set(_ELSEWHERE.values())
)
"""Everything that `keras_operation` may name."""


def keras_operation(function: str) -> str | None:
    """Return the full name of what Keras 3 offers in the place of a function, `None` where there is no single one.

    Args:
        function: Full name of a function of TensorFlow or of `keras.backend`, e.g. `tensorflow.nn.relu`.
    """
    if function.startswith("keras.backend."):
        function = f"tensorflow.{function}"
    if not function.startswith("tensorflow."):
        return None
    room, _, name = function.rpartition(".")
    if function in _ELSEWHERE or room in ("tensorflow.image", "tensorflow.random"):
        return _ELSEWHERE.get(function)
    other = _OTHER_NAME.get(f"{room.rpartition('.')[2]}.{name}") or _OTHER_NAME.get(name)
    return f"keras.ops.{other or name}" if other or name in _SAME_NAME else None
