"""Dimension of the class of functions that an architecture can express."""

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from krratio.networks.layers import Shape
from krratio.networks.trace import trace
from krratio.theory.modular.certificate import Certificate
from krratio.theory.modular.exact import exact_rank
from krratio.theory.own import own_parameters
from krratio.theory.spectrum import NoSpectralGapError, singular_values, spectral_rank

__all__ = ["Certificate", "Dimension", "NoSpectralGapError", "intrinsic_dimension"]

Method = Literal["exact", "float"]


@dataclass(frozen=True)
class Dimension:
    """Dimension of a function class.

    Attributes
    ----------
    value
        The rank of the Jacobian of parameters -> function at a random point.
    method
        How it was computed.
    parameters
        Number of parameters that vary and reach the function, shared ones counted once.
    certificate
        What the exact method proves; None for ``"float"``.
    gap
        Of the float method: the last singular value counted over the first one not counted (inf if
        none is left). NaN for ``"exact"``.
    singular_values
        Of the float method, descending.
    """

    value: int
    method: Method
    parameters: int
    certificate: Certificate | None = None
    gap: float = float("nan")
    singular_values: tuple[float, ...] = field(default=(), repr=False)

    def __int__(self) -> int:
        return self.value


def intrinsic_dimension(
    model: nn.Module,
    input_shape: Shape,
    *,
    method: Method = "exact",
    bias: bool = False,
    seed: int = 0,
    max_bytes: int = 8 * 2**30,
) -> Dimension:
    """Dimension of {theta -> W_X} near a generic point: what least squares has to pay for.

    Parameters
    ----------
    model
        A linear network as :func:`krratio.tensorize` takes it. Its parameters vary around a random
        point, whatever their values, so it may lie on ``device="meta"``; buffers and parameters
        with ``requires_grad=False`` keep their values.
    input_shape
        (C, d_1, ..., d_N).
    method
        ``"exact"``: rank of the Jacobian modulo a random prime at a random point. It never exceeds
        the dimension, falls below it with the probability that the certificate bounds (about
        1e-13), and is a theorem where the explicitly known kernel proves the same upper bound.
        ``"float"``: numerical rank in float64, an independent check.
    bias
        Count the constant term too: biases and BatchNorm shifts vary, and network(0) belongs to
        the function.
    seed
        Draws the point (and the prime).
    max_bytes
        Limit on the size of the Jacobian.

    Returns
    -------
    Dimension
        ``int()`` of it is the dimension.

    Raises
    ------
    NoSpectralGapError
        ``"float"``: no gap of at least 1e3 separates the nonzero singular values from rounding.
    UnsupportedModuleError
        A weight is computed from parameters (a parametrization, a slice, a transpose): the rank
        would be taken in other variables than the network's own.
    MemoryLimitError
        The Jacobian would be larger than the limit.
    ValueError
        The method is neither.

    Notes
    -----
    Running statistics of BatchNorm are held fixed at generic values; its weight and bias vary.
    Source: arXiv 2112.04857 counts degrees of freedom; the exact rank is derived in chapter 05.
    """
    if method not in ("exact", "float"):
        raise ValueError(f"method {method!r} is unknown; use 'exact' or 'float'")
    graph = trace(model, input_shape)
    own = own_parameters(model, graph)
    if method == "exact":
        certificate, count = exact_rank(graph, own, bias=bias, seed=seed, max_bytes=max_bytes)
        return Dimension(certificate.lower, "exact", count, certificate)
    values, side, count = singular_values(graph, own, bias=bias, seed=seed, max_bytes=max_bytes)
    rank, gap = spectral_rank(values, side)
    return Dimension(rank, "float", count, None, gap, tuple(values.tolist()))
