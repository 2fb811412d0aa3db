"""A linear network as one tensor: pulled back to the input, and of low rank over patches."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Inexact, Shaped
from torch import Tensor, nn

from krratio.errors import KrratioError, ShapeError
from krratio.networks.graph import Graph
from krratio.networks.layers import Shape
from krratio.networks.trace import trace
from krratio.theory.adjoint import offset, pull_back
from krratio.theory.formats import Format, cores, format_of, weight_tensor
from krratio.theory.patches import Patcher, as_floating, check_bytes, check_images
from krratio.theory.path import Path, path_of

__all__ = ["TensorizedNetwork", "tensorize"]

MAX_BYTES = 4 * 2**30
"""Default limit on the size of one result."""

_CHUNK_BYTES = 2**28  # of intermediate results, when patches are contracted


def tensorize(
    model: nn.Module, input_shape: Shape, *, max_bytes: int = MAX_BYTES
) -> "TensorizedNetwork":
    """Write a linear network as one tensor.

    Parameters
    ----------
    model
        Any nesting of convolutions (1 to 3 spatial modes), average pooling, BatchNorm and Dropout
        in eval mode, flattening, linear layers, sums, concatenations and channel shuffles. Its
        weights are copied, in float64; later training does not change the result. On
        ``device="meta"`` all that needs only shapes works.
    input_shape
        (C, d_1, ..., d_N) with N = 1, 2, 3, or (C,) for a fully connected network; no batch.
    max_bytes
        Limit on the size of any single result.

    Returns
    -------
    TensorizedNetwork
        Holds ``input_weight`` and ``bias`` with network(x) == <input_weight, x> + bias, and for a
        path of layers ``weight``, ``patches`` and ``contract``.

    Raises
    ------
    UnsupportedModuleError, ShapeError, NonFiniteError
        See :func:`krratio.networks.trace.trace`.

    Notes
    -----
    The result belongs to the float64 network with the given weights: norm-wise it agrees with the
    float64 forward pass to about 1e-15. The forward pass of a float32 network differs from it by
    that pass's own rounding, typically 1e-7 to 1e-6 relative to the output's norm.

    Source: arXiv 2112.04857, the tensor formulation of a CNN (abstract); the position matrices and
    the tensor train of a deep network are derived in chapter 01.
    """
    return TensorizedNetwork(trace(model, input_shape).snapshot(), max_bytes)


@dataclass(frozen=True, eq=False)
class TensorizedNetwork:
    """A linear network and its tensors; everything is computed when first asked for.

    Attributes
    ----------
    graph
        The layers, with float64 copies of their weights.
    max_bytes
        Limit on the size of any single result.
    """

    graph: Graph
    max_bytes: int = MAX_BYTES

    @property
    def input_shape(self) -> Shape:
        """(C, d_1, ..., d_N)."""
        return self.graph.input_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of one image's output."""
        return self.graph.output_shape

    @cached_property
    def input_weight(self) -> Float[Tensor, "*out_in"]:
        """Weights pulled back to the input, float64, shape (*out, C, d_1, ..., d_N)."""
        shape = (*self.output_shape, *self.input_shape)
        check_bytes(shape, 8, self.max_bytes, given=self.input_shape)
        self._needs_values("input_weight")
        outputs = math.prod(self.output_shape)
        widest = max((math.prod(n.shape) for n in self.graph.nodes), default=1)
        step = max(1, min(outputs, self.max_bytes // (8 * 4 * widest)))
        parts = []
        for start in range(0, outputs, step):
            rows = torch.zeros(min(step, outputs - start), outputs, dtype=torch.float64)
            rows.diagonal(start).fill_(1)
            parts.append(pull_back(self.graph, rows.reshape(-1, *self.output_shape)))
        return torch.cat(parts).reshape(shape)

    @cached_property
    def bias(self) -> Float[Tensor, "*out"]:
        """Network(0), float64, shape (*out)."""
        self._needs_values("bias")
        return offset(self.graph, torch.zeros((), dtype=torch.float64))

    @cached_property
    def path(self) -> Path:
        """Body and head; :class:`NotAPathError` if the network is no path."""
        return path_of(self.graph)

    @cached_property
    def format(self) -> Format:
        """Kind, modes and ranks of :attr:`weight`; needs only shapes."""
        return format_of(self.path)

    @property
    def weight(self) -> Any:
        """Weights over patches, float64, as a tensorly container in tensorly's active backend.

        ``TTTensor`` with modes (C ∏l¹, ∏l², ..., ∏p T) and the channel counts as bonds for a stack
        of convolutions; ``TuckerTensor`` with modes (C, l_1, ..., l_N, ∏p T) for 1×1, spatial, 1×1;
        ``CPTensor`` for 1×1, depthwise, 1×1: a depthwise kernel of several modes counts as one mode
        of size ∏l, while one depthwise convolution per mode (k×1, then 1×k) keeps l_1, ..., l_N.
        The last mode runs over positions, then outputs. The expansion is folded into the last
        factor, so the ranks are those of the bottleneck, whatever the number K of channels.
        """
        self._needs_values("weight")
        return weight_tensor(self.path, self._cores)

    @cached_property
    def _patcher(self) -> Patcher:
        return Patcher.of(self.path, self.patch_modes)

    @property
    def patch_modes(self) -> Shape:
        """Shape of one image's patches: the modes of :attr:`weight` without the output's share."""
        *modes, last = self.format.modes
        positions = last // self.path.outputs
        return (*modes, positions)

    def patches(
        self, x: Shaped[Tensor, "n *in"], *, max_bytes: int | None = None
    ) -> Inexact[Tensor, "n *modes"]:
        """Mean-pooled patches Z of a batch, in its dtype and on its device; reads no weight.

        Parameters
        ----------
        x
            Images, shape (n, C, d_1, ..., d_N), real or complex; integers become torch's default
            float. A NaN spoils all patches of its image, since matrices multiply it by zeros.
        max_bytes
            Limit on the size of Z; the network's own limit by default.

        Returns
        -------
        Tensor
            (n, *modes of weight but the output's share, ∏p).

        Raises
        ------
        MemoryLimitError
            Z would be larger than the limit: its modes multiply with depth.
        ShapeError
            The images do not have the input shape.
        NotAPathError
            The network is no path.
        """
        limit = self.max_bytes if max_bytes is None else max_bytes
        x = as_floating(x)
        check_images(x, self.input_shape)
        whole = (len(x), *self.patch_modes)
        check_bytes(whole, x.element_size(), limit, given=tuple(x.shape))
        if x.is_meta or len(x) == 0:
            return x.new_empty(whole)
        return self._patcher(x)

    @cached_property
    def _cores(self) -> list[Tensor]:
        """Cores of the tensor train; without a linear layer the head is an identity, and large."""
        head = (self.path.outputs, *self.path.grid)
        check_bytes(head, 8, self.max_bytes, given=self.input_shape)
        return cores(self.path)

    def contract(self, z: Shaped[Tensor, "n *modes"]) -> Inexact[Tensor, "n *out"]:
        """Contract patches with the weight and add the bias: network(x) if z = patches(x).

        Parameters
        ----------
        z
            Patches, shape (n, *modes, ∏p), as :meth:`patches` gives them.

        Returns
        -------
        Tensor
            (n, *out) in the dtype and on the device of ``z``.
        """
        if tuple(z.shape[1:]) != self.patch_modes:
            raise ShapeError(
                f"contract takes patches of shape (n, {', '.join(map(str, self.patch_modes))}), "
                f"but {tuple(z.shape)} was given; make them with .patches(x)"
            )
        self._needs_values("contract")
        z = as_floating(z)
        train, bias = [core.to(z) for core in self._cores], self.bias.to(z)
        widest = max(core.shape[2] for core in train) * math.prod(self.patch_modes)
        step = max(1, _CHUNK_BYTES // (widest * z.element_size()))
        return torch.cat([self._contract(part, train) + bias for part in z.split(step)])

    def _contract(self, z: Tensor, train: list[Tensor]) -> Tensor:
        *convs, head = train
        state = z.reshape(len(z), 1, math.prod(self.patch_modes))  # (n, bond, what is left)
        for core in convs:
            bond, mode, _ = core.shape
            state = state.reshape(len(z), bond * mode, state.shape[2] // mode)
            state = torch.einsum("nmr,mk->nkr", state, core.flatten(0, 1))
        features = state.shape[1] * state.shape[2]
        y = state.reshape(len(z), features) @ head.reshape(features, self.path.outputs)
        return y.reshape(len(z), *self.output_shape)

    def _needs_values(self, what: str) -> None:
        for node, field, weight in self.graph.weights():
            if weight.is_meta:
                raise KrratioError(
                    f".{what} needs values, but the {field} of {node.name} lies on device='meta'; "
                    "move the model to a real device, or use .format and .patches"
                )
