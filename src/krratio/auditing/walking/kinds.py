"""What operators do to channels: one row per operator of torch; what has none is listed.

The roles decide where a block or a linear run ends.
"""

from collections.abc import Sequence
from enum import Enum

import torch

from krratio.auditing.walking.operations import Operation

__all__ = ["BLANK", "OVERWRITING", "Role", "as_used", "role_of"]


class Role(Enum):
    """What an operation does to channels."""

    CONV = "convolution"
    MATRIX = "matrix product"  # a linear layer where one side is a weight
    LOOKUP = "lookup in a table"  # a linear layer on one-hot vectors
    RECURRENT = "recurrent layer"
    BATCH_NORM = "batch norm"  # linear in eval mode
    NORM = "normalization"  # by statistics of the input itself
    ACTIVATION = "activation"
    AVERAGE = "average pooling"
    MAXIMUM = "max pooling"
    ADD = "sum"
    MULTIPLY = "product"  # a gate where both sides depend on the input, else a scale
    CONCAT = "concatenation"
    MOVE = "move"
    PAD = "padding"
    RESIZE = "resizing"
    UNKNOWN = "not understood"


_ROWS: dict[Role, str] = {
    Role.CONV: "convolution _convolution conv1d conv2d conv3d",
    Role.MATRIX: "addmm mm bmm baddbmm matmul linear addbmm",
    Role.LOOKUP: "embedding",
    Role.RECURRENT: ("lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"),
    Role.BATCH_NORM: (
        "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit "
        "cudnn_batch_norm batch_norm _batch_norm_no_update _batch_norm_with_update"
    ),
    Role.NORM: (
        "native_layer_norm native_group_norm _fused_rms_norm rms_norm linalg_vector_norm norm "
        "var var_mean std _native_batch_norm_legit_functional"
    ),
    Role.ACTIVATION: (
        "relu relu_ gelu gelu_ silu silu_ sigmoid sigmoid_ tanh tanh_ hardtanh hardtanh_ hardswish "
        "hardswish_ hardsigmoid hardsigmoid_ leaky_relu leaky_relu_ elu elu_ celu selu softplus "
        "mish mish_ prelu _prelu_kernel rrelu rrelu_with_noise clamp clamp_ clamp_min clamp_min_ "
        "clamp_max threshold threshold_ softmax _softmax log_softmax _log_softmax log_sigmoid "
        "log_sigmoid_forward exp exp_ log abs sqrt rsqrt pow reciprocal square erf sin cos neg_abs "
        "glu softsign hardshrink softshrink relu6 maximum minimum where sign round floor "
        "_scaled_dot_product_attention_math _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_attention_math_for_mps "
        "_scaled_dot_product_fused_attention_overrideable _safe_softmax logsumexp masked_fill "
        "masked_fill_ eq ne lt le gt ge logical_not logical_and logical_or bitwise_not bitwise_and "
        "isnan isinf argmax argmin sqrt_ square_ abs_ pow_ log_ log1p expm1 log2 exp2 tan atan "
        "atan2 sinh cosh asinh acosh atanh erfc remainder fmod ceil trunc frac sgn nan_to_num "
        "softmax_ leaky_relu_ relu6_ selu_ celu_ logit cummax"
    ),
    Role.AVERAGE: (
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d _adaptive_avg_pool2d "
        "_adaptive_avg_pool3d adaptive_avg_pool2d mean sum"
    ),
    Role.MAXIMUM: (
        "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices "
        "max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool1d amax max amin min topk"
    ),
    Role.ADD: "add add_ sub sub_ rsub lerp lerp_ addcmul addcmul_ addcdiv addcdiv_",
    Role.MULTIPLY: "mul mul_ div div_",
    Role.CONCAT: "cat stack concat slice_scatter",
    Role.MOVE: (
        "view _unsafe_view reshape _reshape_alias permute transpose t expand clone contiguous "
        "slice select split split_with_sizes unsafe_split unsafe_chunk chunk unsqueeze unsqueeze_ "
        "squeeze squeeze_ alias detach flatten unflatten movedim roll flip _to_copy to copy copy_ "
        "unbind index index_select narrow repeat lift_fresh pixel_shuffle pixel_unshuffle "
        "channel_shuffle native_channel_shuffle neg neg_ dropout native_dropout gather unfold "
        "im2col col2im as_strided repeat_interleave constant swapaxes transpose_ squeeze_ t_ tril "
        "_pack_padded_sequence _pad_packed_sequence triu diagonal rot90 take_along_dim"
    ),
    Role.PAD: (
        "constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d"
    ),
    Role.RESIZE: (
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_bilinear2d "
        "upsample_bicubic2d _upsample_bilinear2d_aa upsample_linear1d upsample_trilinear3d "
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d "
        "_upsample_bicubic2d_aa"
    ),
}

_ROLES = {name: role for role, names in _ROWS.items() for name in names.split()}

BLANK = frozenset(
    "new_zeros new_ones new_empty new_full new_empty_strided zeros_like ones_like full_like "
    "empty_like rand_like randn_like randint_like".split()
)
"""Operators that read no more than the shape of a tensor."""

OVERWRITING = frozenset("copy_ fill_ zero_ normal_ uniform_".split())
"""Operators that replace the value of their first argument whole."""


def role_of(operator: str) -> Role:
    """The role of an operator, by the name that torch dispatches."""
    return _ROLES.get(operator, Role.UNKNOWN)


def as_used(operation: Operation) -> Role:
    """The role of an operation by what it is given: some are linear only in one argument.

    A product of two values that depend on the input is one, whatever else is added to it, and a
    division by such a value, or one that rounds, is an activation.
    """
    name, given = operation.name.rstrip("_"), operation.arguments
    if name == "div":
        rounds = operation.options.get("rounding_mode") is not None
        return Role.ACTIVATION if rounds or _depends(given, [1], [0]) else Role.MULTIPLY
    if name == "addcdiv" and _depends(given, [2]):
        return Role.MULTIPLY if _depends(given, [1]) else Role.ACTIVATION
    if name == "addcmul" and _depends(given, [1, 2]):
        return Role.MULTIPLY
    if name == "lerp" and _depends(given, [2]) and len(operation.inputs) > 1:
        return Role.MULTIPLY
    dtype = operation.options.get("dtype")
    rounded = isinstance(dtype, torch.dtype) and not (dtype.is_floating_point or dtype.is_complex)
    return Role.ACTIVATION if rounded and name == "_to_copy" else role_of(operation.name)


def _depends(given: Sequence[int | str], on: Sequence[int], not_on: Sequence[int] = ()) -> bool:
    """Whether arguments at these places are values, and those at others none."""
    values = {place for place, argument in enumerate(given) if isinstance(argument, int)}
    return values.issuperset(on) and not values & set(not_on)
