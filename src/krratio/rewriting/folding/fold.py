"""Folding: channel edges of a network rewritten with as many channels as can pass them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from krratio.auditing.audit import shapes_of
from krratio.auditing.structure.flow import Flow
from krratio.auditing.walking.walk import tensors, walk
from krratio.rewriting.errors import FoldError
from krratio.rewriting.folding.edges import Edge, edge_behind
from krratio.rewriting.folding.narrow import Narrowed, narrowed
from krratio.rewriting.folding.plain import RefusalError, module_at

__all__ = ["FoldResult", "fold"]

Shape = tuple[int, ...]

_SAME = 1e-9  # relative difference of outputs, in float64, beyond which a fold was wrong


@dataclass(frozen=True, eq=False)
class FoldResult:
    """A folded network.

    Attributes
    ----------
    model : nn.Module
        A copy; the network that was given is as it was.
    report : DataFrame
        One row for each layer that puts channels out: ``name``, ``K`` before, ``channels`` after,
        ``reader``, ``saved`` parameters (of all layers of the edge, in the row of its first
        producer), ``error`` (an upper bound of ‖ΔW x‖ / (‖W‖ ‖x‖) for what the producers write,
        Frobenius norm of W; 0 without ``tol``) and ``reason``: empty where it was folded, else what
        stands against it.
    difference : float
        Largest difference of both networks' outputs on random inputs over the largest output, in
        float64.
    """

    model: nn.Module
    report: pd.DataFrame
    difference: float


def fold(
    model: nn.Module, input_shape: Shape | Sequence[Shape], *, tol: float | None = None
) -> FoldResult:
    """Rewrite every foldable channel edge with the rank that can pass it.

    An edge folds where all that writes K channels are convolutions without groups and linear
    layers, each with a BatchNorm at most, and all that reads them too, with nothing between but
    average pooling, resizing, flattening, sums and concatenations. Then the K channels become as
    many as the producers' weights side by side have rank, or the readers'; one more for each
    producer whose offset meets zero padding outside of that range. Nothing gets more parameters or
    multiply-adds.

    Parameters
    ----------
    model
        Any module in eval or train mode; BatchNorm is taken as in eval mode.
    input_shape
        As for :func:`krratio.audit`.
    tol
        None folds by shape, exactly. A number in (0, 1) also cuts off singular values of the weight
        below this fraction of the largest; the error is reported.

    Returns
    -------
    FoldResult

    Raises
    ------
    FoldError
        Weights lie on ``device="meta"`` or have several dtypes, the tolerance is out of range, or
        the folded network is not the same function (which would be a defect).
    ForwardError
        As :func:`krratio.audit`.

    Notes
    -----
    The reparameterization lemma of chapter 02, applied edge by edge.
    """
    if tol is not None and not 0 < tol < 1:
        raise FoldError(f"tol={tol}: None or a number between 0 and 1 is needed.")
    shapes, dtype = shapes_of(input_shape), _dtype(model)
    with torch.random.fork_rng(devices=[]):
        try:
            whole = copy.deepcopy(model).double().eval()
        except Exception as error:
            raise FoldError(f"the network cannot be copied: {error}") from error
        folding = _Folding(whole, copy.deepcopy(whole), shapes, tol)
        while folding.step():
            pass
        difference = folding.difference()
    folded = folding.model.to(dtype)
    for name, module in folded.named_modules():
        was = module_at(model, name)
        module.training = model.training if was is None else was.training
    return FoldResult(folded, folding.report(), difference)


_COLUMNS = ("name", "K", "channels", "reader", "saved", "error", "reason")


class _Folding:
    """A network on its way, edge by edge; every fold is checked, and undone if it is off.

    ``done`` holds the row of each folded layer, ``wrong`` the layers whose fold failed the check.
    """

    def __init__(
        self, whole: nn.Module, model: nn.Module, shapes: list[Shape], tol: float | None
    ) -> None:
        self.whole, self.model, self.shapes, self.tol = whole, model, shapes, tol
        self.done: dict[str, dict[str, object]] = {}
        self.wrong: dict[str, str] = {}
        self.refused: list[dict[str, object]] = []

    def step(self) -> bool:
        """Fold the first edge that can be, or say of all edges why not."""
        flow = Flow(walk(self.model, self.shapes))
        self.refused = []
        for layer in flow.layers:
            row: dict[str, object] = dict.fromkeys(_COLUMNS, "")
            row |= {"name": layer.name, "K": layer.K, "channels": layer.K, "saved": 0, "error": 0.0}
            try:
                edge = edge_behind(flow, layer, self.model, self.wrong)
                self._note(edge, self._fold(edge))
            except RefusalError as refusal:
                self.refused.append(row | {"reason": str(refusal)})
                continue
            return True
        return False

    def _fold(self, edge: Edge) -> Narrowed:
        found = narrowed(edge, self.model, self.tol)
        old = {name: self.model.get_submodule(name) for name in found.modules}
        for name, module in found.modules.items():
            for parameter in module.parameters():
                parameter.requires_grad_(any(q.requires_grad for q in old[name].parameters()))
            self.model.set_submodule(name, module.eval())
        problem = self._problem()
        if problem:
            for name, module in old.items():
                self.model.set_submodule(name, module)
            self.wrong |= dict.fromkeys(edge.producers, problem)
            raise RefusalError(problem)
        return found

    def _note(self, edge: Edge, found: Narrowed) -> None:
        """Write a fold down; what was saved stands with the first producer."""
        saved = found.saved
        for name in edge.producers:
            before = self.done.get(name, {"K": edge.K, "saved": 0, "error": 0.0})
            self.done[name] = {
                "name": name,
                "K": before["K"],
                "channels": found.channels,
                "reader": ", ".join(edge.readers),
                "saved": before["saved"] + saved,  # type: ignore[operator]
                "error": math.hypot(before["error"], found.error),  # type: ignore[arg-type]
                "reason": "",
            }
            saved = 0

    def _problem(self) -> str:
        """What is wrong with the network as it is now; empty if nothing is."""
        try:
            difference = self.difference()
        except Exception as error:
            return f"the folded network fails: {str(error).splitlines()[0]}"
        allowed = _SAME if self.tol is None else math.inf
        return "" if difference <= allowed else f"the folded network differs by {difference:.1e}"

    def difference(self) -> float:
        """How far both networks are apart on random inputs."""
        return _difference(self.whole, self.model, self.shapes)

    def report(self) -> pd.DataFrame:
        """One row for each layer."""
        rest = [row for row in self.refused if row["name"] not in self.done]
        return pd.DataFrame([*self.done.values(), *rest], columns=list(_COLUMNS))


def _dtype(model: nn.Module) -> torch.dtype:
    parameters = list(model.parameters())
    if any(p.is_meta for p in parameters):
        raise FoldError("weights lie on device='meta'; folding needs their values")
    dtypes = {p.dtype for p in parameters}
    if len(dtypes) > 1:
        raise FoldError(f"weights have the dtypes {sorted(map(str, dtypes))}; convert them to one")
    return dtypes.pop() if dtypes else torch.float32


def _difference(one: nn.Module, other: nn.Module, shapes: list[Shape]) -> float:
    """Largest difference of the outputs on two random inputs, over the largest output."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, *s, generator=generator, dtype=torch.float64) for s in shapes]
    with torch.no_grad():
        pairs = list(zip(tensors(one(*inputs)), tensors(other(*inputs)), strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return math.inf
    largest = max(float(a.abs().max()) for a, _ in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / max(largest, 1e-300)
