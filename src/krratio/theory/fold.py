"""The reparameterization lemma as a construction: K expanded channels become R, same function.

Only the case of one pointwise expansion and the one layer that reads it; chapter 02 derives it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from krratio.errors import ShapeError, UnsupportedModuleError

__all__ = ["IN_RANGE", "Conv", "fold_expansion", "layer_like", "offset_of", "sees_padding"]

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d

IN_RANGE = 1e-12
"""An offset is in the range of the expansion if this fraction of it, at most, lies outside."""


def fold_expansion(expansion: nn.Module, following: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Fold the K channels of a pointwise expansion into the layer that reads them.

    With weights H of shape (K, R) and offset c, the layer that follows keeps its form and gets
    the weights sum_k H[k, r] B_k. The offset goes where it can: to the R channels if c = H a,
    else to the bias of the layer that follows if that layer sees no padding, else to one more
    channel that is constantly 1 before the padding.

    Parameters
    ----------
    expansion
        1×1 convolution without groups, R -> K channels, K >= R.
    following
        The only reader of the K channels: a convolution without groups, or a linear layer on the
        flattened channels. Between the two only what treats channels alike and keeps constants may
        stand (flattening, average pooling that does not count padding).

    Returns
    -------
    narrow, folded : nn.Module
        To be put in the places of the two; float64. ``narrow`` puts out R channels, or R + 1 where
        an offset outside the range of H meets zero padding.

    Raises
    ------
    UnsupportedModuleError
        A layer is none of these kinds, or is not dense in channels, or pads by another mode.
    ShapeError
        The channels do not fit, or there are fewer than R.

    Notes
    -----
    Source: arXiv 2112.04857 names K/R as what governs redundancy; the lemma is derived in
    chapter 02.
    """
    conv, reader = _pointwise(expansion), _dense(following)
    wide = conv.weight.detach().to(torch.float64).flatten(1)
    channels, rank = wide.shape
    rows = _by_channel(reader, channels)
    if channels < rank:
        raise ShapeError(
            f"the expansion puts out {channels} channels of {rank}: it already is narrower than "
            "its input, so nothing can be folded"
        )
    offset = offset_of(conv)
    shift = torch.linalg.pinv(wide) @ offset
    frame, inner, outer = torch.eye(rank, dtype=torch.float64), shift, offset_of(reader)
    if float((wide @ shift - offset).norm()) > IN_RANGE * float(offset.norm()):
        inner = torch.zeros(rank, dtype=torch.float64)
        if sees_padding(reader):
            frame = torch.eye(rank + 1, rank, dtype=torch.float64)
            inner = torch.eye(rank + 1, dtype=torch.float64)[rank]
            wide = torch.cat([wide, offset[:, None]], 1)
        else:
            outer = outer + torch.einsum("mkl,k->m", rows, offset)
    folded = torch.einsum("mkl,kr->mrl", rows, wide)
    return layer_like(conv, frame[..., None], inner), layer_like(reader, folded, outer)


def _pointwise(layer: nn.Module) -> Conv:
    if not isinstance(layer, Conv) or layer.groups > 1 or max(layer.kernel_size) > 1:
        raise UnsupportedModuleError(
            f"the expansion is {layer}; only a 1×1 convolution without groups can be folded"
        )
    _zero_padded(layer)
    return layer


def _dense(layer: nn.Module) -> Conv | nn.Linear:
    if isinstance(layer, nn.Linear):
        return layer
    if not isinstance(layer, Conv) or layer.groups > 1:
        raise UnsupportedModuleError(
            f"the layer that follows is {layer}; the expansion folds only into a layer that is "
            "dense in channels: a convolution without groups, or a linear layer"
        )
    _zero_padded(layer)
    return layer


def _zero_padded(layer: Conv) -> None:
    if layer.padding_mode != "zeros":
        raise UnsupportedModuleError(
            f"{layer} pads by the mode {layer.padding_mode!r}; only 'zeros' is allowed"
        )


def sees_padding(reader: nn.Module) -> bool:
    """Whether a layer pads what it reads with zeros."""
    if not isinstance(reader, Conv):
        return False
    if isinstance(reader.padding, str):
        return reader.padding == "same" and max(reader.kernel_size) > 1
    return max(reader.padding) > 0


def _by_channel(reader: Conv | nn.Linear, channels: int) -> Float[Tensor, "M K l"]:
    """Weights of the reader; entry [m, k, a] multiplies channel k at place a of its window."""
    weight = reader.weight.detach().to(torch.float64)
    given = weight.shape[1]
    fits = given % channels == 0 if isinstance(reader, nn.Linear) else given == channels
    if not fits:
        raise ShapeError(
            f"the expansion puts out {channels} channels, but the layer that follows takes {given} "
            + ("features, not a multiple" if isinstance(reader, nn.Linear) else "channels")
        )
    return weight.reshape(len(weight), channels, -1)


def offset_of(layer: Conv | nn.Linear) -> Float[Tensor, " m"]:
    """Bias of a layer, in float64; zeros where it has none."""
    if layer.bias is None:
        return torch.zeros(len(layer.weight), dtype=torch.float64)
    return layer.bias.detach().to(torch.float64)


def layer_like(
    layer: nn.Module, weight: Float[Tensor, "m C l"], offset: Float[Tensor, " m"]
) -> Conv | nn.Linear:
    """A layer of the same geometry with other weights, float64; without a bias where it is zero.

    Parameters
    ----------
    layer
        A convolution without groups, or a linear layer.
    weight
        Entry [m, c, a] multiplies channel c at place a of the window (of a linear layer: of the
        places flattened with the channel).
    offset
        The bias.
    """
    biased = bool((offset != 0).any())
    made: Conv | nn.Linear
    if isinstance(layer, Conv):
        weight = weight.reshape(*weight.shape[:2], *layer.kernel_size)
        made = type(layer)(
            weight.shape[1],
            weight.shape[0],
            layer.kernel_size,  # type: ignore[arg-type]  # one size per mode of its own kind
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            bias=biased,
            dtype=torch.float64,
        )
    else:
        weight = weight.flatten(1)
        made = nn.Linear(weight.shape[1], len(weight), bias=biased, dtype=torch.float64)
    made.load_state_dict({"weight": weight} | ({"bias": offset} if biased else {}))
    return made
