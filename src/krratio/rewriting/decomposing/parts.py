"""A low-rank block as a list of convolutions, and the one kernel that they make together."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Part", "as_stored", "composed"]


@dataclass(frozen=True, eq=False)
class Part:
    """One convolution of a block, without bias.

    Attributes
    ----------
    name
        Under which it stands in the block.
    weight
        (g, out, in, *window): entry [a, o, i] is the filter from channel i to channel o of group a,
        of size 1 along every spatial mode that is none of ``modes``.
    modes
        Spatial modes that this convolution walks along: stride, padding and dilation are its.
    depthwise
        Whether channel o reads channel o alone (in = 1).
    """

    name: str
    weight: Tensor
    modes: tuple[int, ...]
    depthwise: bool = False

    @property
    def channels(self) -> int:
        """Channels that enter it, of all groups."""
        g, out, inner = self.weight.shape[:3]
        return g * (out if self.depthwise else inner)


def as_stored(parts: tuple[Part, ...], dtype: torch.dtype) -> tuple[Part, ...]:
    """The parts with their weights rounded to ``dtype``, in float64 again."""
    return tuple(replace(part, weight=part.weight.to(dtype).double()) for part in parts)


def composed(parts: tuple[Part, ...]) -> Float[Tensor, "g K C *l"]:
    """Kernel of the convolution that applies the parts one after the other.

    No two parts walk along the same mode, so that their filters multiply.
    """
    first, *rest = parts
    kernel = first.weight
    for part in rest:
        if part.depthwise:
            kernel = part.weight * kernel
        else:
            kernel = torch.einsum("gom...,gmi...->goi...", part.weight, kernel)
    return kernel
