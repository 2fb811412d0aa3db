"""The functions of a network as a class for least squares: W_X(θ) and its derivatives, in batches.

Every layer is a matrix that is linear in its weight, so W_X = M_h ⋯ M_1 along each path. For one θ
that is what ``theory.adjoint`` computes; here many θ are multiplied out at once, and the product
rule gives first and second derivatives as matrix products.
"""

import math
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor

from krratio.errors import MemoryLimitError
from krratio.experiments.charts import Local
from krratio.experiments.draws import Draws
from krratio.experiments.seeds import torch_stream
from krratio.networks.graph import INPUT, Graph
from krratio.networks.layers import BatchNorm, Conv, Layer, Shape, Sum
from krratio.theory.adjoint import FORWARD

__all__ = ["NetworkChart"]

_GAUGE = 1e-13  # squared singular values of ∂W/∂θ below this fraction of the largest are gauge
_DAMPING = 1e-3  # below this fraction a step is measured in θ, not in the weights it moves


@dataclass(frozen=True, eq=False)
class _Use:
    """One use of a weight.

    Attributes
    ----------
    node : int
        Where it is used.
    place : slice
        Where its entries stand in θ.
    basis : Tensor
        (n, out, in): the layer's matrix is the sum of entries times these.
    """

    node: int
    place: slice
    basis: Tensor


class NetworkChart:
    """{W_X(θ)} of a graph; θ (S, N) are the weights that vary, flattened.

    Coordinates are z = diag(s) Vᵀ dθ, where s and V are singular values and right singular vectors
    of ∂W/∂θ: a ball in z is a ball of weights W. Directions with s = 0 are gauge and get no step.

    Raises
    ------
    MemoryLimitError
        The layers' matrices would take more than ``max_bytes``.
    """

    def __init__(self, draws: Draws, graph: Graph, own: set[int], *, max_bytes: int) -> None:
        self.draws, self.graph = draws, graph
        self.features, self.outputs = draws.shape[0], draws.shape[2]
        self.cross = draws.cross.mT.contiguous()  # (m, T, D)
        self.slope_scale = draws.cross.flatten(1).norm(dim=1).clamp_min(1e-300)
        self.uses: list[_Use] = []
        self.fixed: dict[int, Tensor] = {}
        self.places: dict[int, slice] = {}
        _check_size(graph, own, max_bytes)
        for i, node in enumerate(graph.nodes):
            self._add(i, node.layer, own)
        self.width = self._generic_rank()

    def _add(self, i: int, layer: Layer, own: set[int]) -> None:
        if isinstance(layer, Sum):
            return
        shape = self.graph.shape(self.graph.nodes[i].inputs[0])
        weight = layer.weights().get("weight")
        if weight is None or id(weight) not in own:
            self.fixed[i] = _matrix(layer, shape)
            return
        start = max((place.stop for place in self.places.values()), default=0)
        place = self.places.setdefault(id(weight), slice(start, start + weight.numel()))
        units = torch.eye(weight.numel(), dtype=torch.float64).reshape(-1, *weight.shape)
        basis = torch.stack([_matrix(_with(layer, weight=unit), shape) for unit in units])
        self.uses.append(_Use(i, place, basis))

    def _generic_rank(self) -> int:
        """Rank of ∂W/∂θ at a random θ, which is the largest that it has anywhere."""
        if not self.size:
            return 0
        theta = torch.randn(1, self.size, generator=torch_stream(0, "rank"), dtype=torch.float64)
        squares = torch.linalg.svdvals(self.jacobian(theta)[0]).square()
        return int((squares > _GAUGE * squares[0]).sum())

    @property
    def size(self) -> int:
        """N, the number of weights that vary."""
        return max((place.stop for place in self.places.values()), default=0)

    def present(self, own: dict[int, Tensor]) -> Tensor:
        """θ (N,) of the network's present weights."""
        theta = torch.empty(self.size, dtype=torch.float64)
        for name, place in self.places.items():
            theta[place] = own[name].detach().to(torch.float64).flatten()
        return theta

    def random(self, count: int, generator: torch.Generator) -> Tensor:
        """θ (count, N) with entries of variance 1 / fan-in."""
        theta = torch.empty(count, self.size, dtype=torch.float64)
        for use in self.uses:
            fan_in = use.basis.flatten(1).count_nonzero() / use.basis.shape[1]
            size = count, use.place.stop - use.place.start
            drawn = torch.randn(*size, generator=generator, dtype=torch.float64)
            theta[:, use.place] = drawn / fan_in.clamp_min(1).sqrt()
        return theta

    def regular(self, theta: Tensor) -> Tensor:
        """Whether ∂W/∂θ has its generic rank (S,): where it has less, W is a singular member."""
        squares = torch.linalg.eigvalsh(_smaller(self.jacobian(theta)))
        free = squares > _GAUGE * squares[:, -1:].clamp_min(1e-300)
        enough: Tensor = free.sum(1) >= self.width
        return enough

    def cancellation(self, theta: Tensor) -> Tensor:
        """Σ_g ‖W_g‖ / ‖W‖ (S,) over the groups g of the grouped convolution where it is largest.

        W_g is what passes through one group. Networks without one have the single term W.
        """
        layers = [(i, node.layer) for i, node in enumerate(self.graph.nodes)]
        grouped = [(i, c.groups) for i, c in layers if isinstance(c, Conv) and c.groups > 1]
        largest = torch.ones(len(theta), dtype=torch.float64)
        if not grouped:
            return largest
        matrices = self._matrices(theta)
        values, cotangents = self._values(matrices, INPUT), self._cotangents(matrices, len(theta))
        whole = values[self.graph.output].expand(len(theta), -1, -1).flatten(1).norm(dim=1)
        for i, groups in grouped:
            if i in cotangents:
                pulled = (cotangents[i] @ matrices[i]).unflatten(2, (groups, -1))
                entering = values[self.graph.nodes[i].inputs[0]].unflatten(-2, (groups, -1))
                terms = (pulled.transpose(1, 2) @ entering).flatten(2).norm(dim=2).sum(1)
                largest = torch.maximum(largest, terms / whole.clamp_min(1e-300))
        return torch.where(whole > 0, largest, 1.0)

    def enter(self, theta: Tensor) -> Tensor:
        """θ as it is."""
        return theta

    def leave(self, theta: Tensor) -> Tensor:
        """θ as it is."""
        return theta

    def totals(self, rows: Tensor) -> Tensor:
        """Objective (S,) at W = 0."""
        return self.draws.total[rows].sum(1) / 2

    def weight(self, theta: Tensor) -> Tensor:
        """W_X (S, T, D)."""
        return self._values(self._matrices(theta), INPUT)[self.graph.output]

    def jacobian(self, theta: Tensor) -> Tensor:
        """∂W_X/∂θ, (S, T·D, N) for θ (S, N)."""
        matrices = self._matrices(theta)
        values, cotangents = self._values(matrices, INPUT), self._cotangents(matrices, len(theta))
        return self._jacobian(values, cotangents)

    def value(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Objective (S,) at θ."""
        weight, cross = self.weight(theta), self.cross[rows]
        return self._objective(weight, self._seen(weight, rows), cross, rows)

    def move(self, theta: Tensor, lift: Tensor, step: Tensor) -> Tensor:
        """The point at coordinates ``step`` (S, n)."""
        return theta + (lift @ step[..., None])[..., 0]

    def curvatures(self, theta: Tensor, rows: Tensor) -> Tensor:
        """Eigenvalues (S, N) of the second derivative of the objective in θ itself, ascending."""
        matrices = self._matrices(theta)
        values = self._values(matrices, INPUT)
        cotangents = self._cotangents(matrices, len(theta))
        weight = values[self.graph.output].expand(len(theta), -1, -1)
        slope = self._seen(weight, rows) - self.cross[rows]
        jacobian = self._jacobian(values, cotangents)
        pushed = self._seen(jacobian.mT.reshape(len(theta), -1, self.features), rows)
        pushed = pushed.reshape(len(theta), self.size, -1)
        hessian = pushed @ jacobian + self._curvature(matrices, values, cotangents, slope)
        found: Tensor = torch.linalg.eigvalsh((hessian + hessian.mT) / 2)
        return found

    def expand(self, theta: Tensor, rows: Tensor) -> Local:
        """Objective, derivatives and coordinates at θ."""
        matrices = self._matrices(theta)
        values = self._values(matrices, INPUT)
        cotangents = self._cotangents(matrices, len(theta))
        weight, cross = values[self.graph.output].expand(len(theta), -1, -1), self.cross[rows]
        seen = self._seen(weight, rows)
        slope = seen - cross
        jacobian = self._jacobian(values, cotangents)  # (S, T·D, N)
        lift, moves, free = _coordinates(jacobian, self.width)
        pushed = self._seen(moves.mT.reshape(len(theta), -1, self.features), rows)
        curved = lift.mT @ self._curvature(matrices, values, cotangents, slope) @ lift
        hessian = pushed.reshape(*lift.shape[::2], -1) @ moves + curved
        level = hessian.flatten(1).norm(dim=1)[:, None].clamp_min(1e-300)
        hessian = (hessian + hessian.mT) / 2 + torch.diag_embed(~free * level)
        gradient = (moves.mT @ slope.flatten(1)[..., None])[..., 0]

        def norm(some: Tensor) -> Tensor:
            basis = moves[some] / moves[some].norm(dim=1, keepdim=True).clamp_min(1e-300)
            along = basis.mT @ slope[some].flatten(1)[..., None]
            found: Tensor = along.flatten(1).norm(dim=1) / self.slope_scale[rows[some]]
            return found

        tensor = weight.mT[:, :, None].contiguous()  # (S, D, 1, T)
        value = self._objective(weight, seen, cross, rows)
        return Local(value, gradient, hessian, lift, tensor, norm)

    def _objective(self, weight: Tensor, seen: Tensor, cross: Tensor, rows: Tensor) -> Tensor:
        return self.totals(rows) + (weight * (seen / 2 - cross)).sum((1, 2))

    def _seen(self, rows_of: Tensor, rows: Tensor) -> Tensor:
        """``rows_of`` (S, k, D) times the Gram."""
        gram = self.draws.gram
        return rows_of @ (gram if gram.ndim == 2 else gram[rows])

    def _matrices(self, theta: Tensor) -> dict[int, Tensor]:
        """Matrix (S, out, in), or (out, in), of every node but sums."""
        made = {
            use.node: (theta[:, use.place] @ use.basis.flatten(1)).reshape(
                len(theta), *use.basis.shape[1:]
            )
            for use in self.uses
        }
        return self.fixed | made

    def _values(self, matrices: dict[int, Tensor], source: int) -> dict[int, Tensor]:
        """Each node's value as a function of the value of ``source``, behind which it lies."""
        size = math.prod(self.graph.shape(source))
        values = {source: torch.eye(size, dtype=torch.float64)}
        for i in range(source + 1, len(self.graph.nodes)):
            node = self.graph.nodes[i]
            if isinstance(node.layer, Sum):
                terms = zip(node.layer.coefficients, node.inputs, strict=True)
                found = [c * values[j] for c, j in terms if j in values]
                if found:
                    values[i] = sum(found[1:], found[0])
            elif node.inputs[0] in values:
                values[i] = matrices[i] @ values[node.inputs[0]]
        return values

    def _cotangents(self, matrices: dict[int, Tensor], starts: int) -> dict[int, Tensor]:
        """∂output / ∂value of each node, (S, T, ·)."""
        eye = torch.eye(self.outputs, dtype=torch.float64).expand(starts, -1, -1)
        pulled = {self.graph.output: eye}
        for i in range(self.graph.output, INPUT, -1):
            node = self.graph.nodes[i]
            if i not in pulled:
                continue
            coefficients = node.layer.coefficients if isinstance(node.layer, Sum) else (1.0,)
            for c, source in zip(coefficients, node.inputs, strict=True):
                part = c * pulled[i] if isinstance(node.layer, Sum) else pulled[i] @ matrices[i]
                pulled[source] = pulled[source] + part if source in pulled else part
        return pulled

    def _source(self, use: _Use) -> int:
        return self.graph.nodes[use.node].inputs[0]

    def _pulled(self, use: _Use, cotangents: dict[int, Tensor]) -> Tensor:
        """Cotangents through each basis matrix of a use, (S, T, n, in)."""
        n, out, into = use.basis.shape
        flat = use.basis.transpose(0, 1).reshape(out, n * into)
        pulled: Tensor = (cotangents[use.node] @ flat).unflatten(-1, (n, into))
        return pulled

    def _jacobian(self, values: dict[int, Tensor], cotangents: dict[int, Tensor]) -> Tensor:
        """∂W/∂θ, (S, T·D, N)."""
        starts = len(cotangents[self.graph.output])
        jacobian = torch.zeros(starts, self.size, self.outputs, self.features, dtype=torch.float64)
        for use in self.uses:
            pulled = self._pulled(use, cotangents).flatten(1, 2)  # (S, T·n, in)
            part = (pulled @ values[self._source(use)]).unflatten(1, (self.outputs, -1))
            jacobian[:, use.place] += part.transpose(1, 2)
        return jacobian.flatten(2).mT

    def _curvature(
        self,
        matrices: dict[int, Tensor],
        values: dict[int, Tensor],
        cotangents: dict[int, Tensor],
        slope: Tensor,
    ) -> Tensor:
        """⟨slope, ∂²W/∂θ²⟩, (S, N, N)."""
        starts = len(slope)
        curvature = torch.zeros(starts, self.size, self.size, dtype=torch.float64)
        behind = {use.node: self._values(matrices, use.node) for use in self.uses}
        for early, late in combinations(self.uses, 2):
            between = behind[early.node].get(self._source(late))
            if between is None:
                continue
            entering = values[self._source(early)] @ slope.mT  # (S, in, T)
            n, out, into = early.basis.shape
            pushed = (early.basis.reshape(n * out, into) @ entering).reshape(starts, n, -1)
            pulled = self._pulled(late, cotangents)  # (S, T, n', in')
            through = pulled @ (between if between.ndim == 2 else between[:, None])
            through = through.permute(0, 2, 3, 1).flatten(2)  # (S, n', out·T)
            block = pushed @ through.mT
            curvature[:, early.place, late.place] += block
            curvature[:, late.place, early.place] += block.mT
        return curvature


def _smaller(jacobian: Tensor) -> Tensor:
    """JJᵀ or JᵀJ, whichever is smaller."""
    wide = jacobian.shape[1] < jacobian.shape[2]
    return jacobian @ jacobian.mT if wide else jacobian.mT @ jacobian


def _coordinates(jacobian: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lift (S, N, n), the weights' moves J·lift (S, F, n), and which of n = width are no gauge."""
    wide = jacobian.shape[1] < jacobian.shape[2]
    squares, vectors = torch.linalg.eigh(_smaller(jacobian))
    largest = squares[:, -1:].clamp_min(1e-300)
    free = squares > _GAUGE * largest
    squares, vectors, free = squares[:, -width:], vectors[..., -width:], free[:, -width:]
    if wide:
        sizes = squares.clamp_min(0).sqrt().clamp_min(1e-300)
        vectors = jacobian.mT @ vectors / sizes[:, None]
    scale = (squares.clamp_min(0) + _DAMPING**2 * largest).sqrt()
    lift = torch.where(free[:, None], vectors / scale[:, None], 0.0)
    return lift, jacobian @ lift, free


def _matrix(layer: Layer, shape: Shape) -> Tensor:
    """Matrix (out, in) of a layer without its constants."""
    if hasattr(layer, "bias"):
        layer = _with(layer, bias=None)
    if isinstance(layer, BatchNorm):
        layer = _with(layer, mean=torch.zeros_like(layer.mean))
    layer = layer.map_weights(lambda w: w.detach().cpu().to(torch.float64))
    eye = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    return FORWARD[type(layer)](layer, eye).flatten(1).mT.contiguous()


def _with(layer: Layer, **fields: Tensor | None) -> Layer:
    changed: Layer = replace(layer, **fields)
    return changed


def _check_size(graph: Graph, own: set[int], max_bytes: int) -> None:
    size = 0
    for node in graph.nodes:
        weight = node.layer.weights().get("weight")
        if weight is not None and id(weight) in own:
            source = graph.shape(node.inputs[0])
            size += 8 * weight.numel() * math.prod(source) * math.prod(node.shape)
    if size > max_bytes:
        raise MemoryLimitError(
            f"the layers' matrices take {size:,} bytes, above max_bytes = {max_bytes:,}; fit a "
            "smaller network or smaller images, or train it with krratio.train"
        )
