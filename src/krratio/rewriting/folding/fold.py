"""Folding: channel edges of a network rewritten with as many channels as can pass them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from krratio.auditing.structure.flow import Flow
from krratio.auditing.walking.inputs import Input, Inputs, inputs_of
from krratio.auditing.walking.operations import Walk
from krratio.auditing.walking.walk import walk
from krratio.errors import NonFiniteError
from krratio.rewriting.errors import FoldError
from krratio.rewriting.folding.edges import Edge, edge_behind
from krratio.rewriting.folding.narrow import Narrowed, narrowed
from krratio.rewriting.folding.plain import RefusalError
from krratio.rewriting.folding.same import Trials, difference, doubled, other_constants

__all__ = ["FoldResult", "fold"]

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
    model: nn.Module, input_shape: Input | Sequence[Input], *, tol: float | None = None
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
        As for :func:`krratio.audit`; the values of tensors are used, float64 in place of shorter
        floats.
    tol
        None folds by shape, exactly. A number in (0, 1) also cuts off singular values of the weight
        below this fraction of the largest; the error is reported.

    Returns
    -------
    FoldResult

    Raises
    ------
    FoldError
        Weights lie on ``device="meta"`` or have several dtypes, the tolerance is out of range, the
        network cannot be copied, fails in float64, or gives other outputs the second time.
    NonFiniteError
        A weight holds NaN or infinity.
    ForwardError, ShapeError
        As :func:`krratio.audit`.

    Notes
    -----
    The reparameterization lemma of chapter 02, applied edge by edge. Every fold is tried on inputs
    of two scales, each output by itself, and undone where it is off by more than 1e-9 or where a
    constant of the forward depends on the number of channels. Dropout between the layers stays, and
    in train mode draws for fewer channels.
    """
    if tol is not None and not (isinstance(tol, float | int) and 0 < tol < 1):
        raise FoldError(f"tol={tol!r}: None or a number between 0 and 1 is needed.")
    dtype, inputs = _dtype(model), doubled(inputs_of(input_shape))
    folding = _Folding(_copied(model).cpu().double().eval(), inputs, tol, dtype)
    with torch.random.fork_rng(devices=[]):  # new layers draw weights before they get theirs
        while folding.step():
            pass
    folded = _copied(model)
    for name in folding.changed:
        was, new = folded.get_submodule(name), folding.model.get_submodule(name)
        device = next((p.device for p in was.parameters()), None)
        folded.set_submodule(name, new.to(device, dtype).train(was.training))
    return FoldResult(folded, folding.report(), folding.difference())


_COLUMNS = ("name", "K", "channels", "reader", "saved", "error", "reason")


class _Folding:
    """A network on its way, edge by edge; every fold is checked, and undone if it is off.

    ``done`` holds the row of each folded layer, ``wrong`` the layers whose fold failed the check,
    ``changed`` the names of all modules that are new.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, tol: float | None, dtype: torch.dtype
    ) -> None:
        self.model, self.inputs, self.tol, self.dtype = model, inputs, tol, dtype
        self.walk = walk(model, inputs)
        self.trials = Trials(inputs)
        self.first = self.outputs = self._outputs()
        if difference(self.first, self._outputs()) > 0:
            raise FoldError("the network gives other outputs the second time; make it repeatable")
        self.done: dict[str, dict[str, object]] = {}
        self.wrong: dict[str, str] = {}
        self.refused: list[dict[str, object]] = []
        self.changed: dict[str, None] = {}

    def _outputs(self) -> list[Tensor]:
        try:
            return self.trials.outputs(self.model)
        except Exception as error:
            raise FoldError(f"the network fails in float64: {error}") from error

    def step(self) -> bool:
        """Fold the first edge that can be, or say of all edges why not."""
        flow = Flow(self.walk)
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
        for module in found.modules.values():
            if not all(p.to(self.dtype).isfinite().all() for p in module.parameters()):
                raise RefusalError(f"its folded weights overflow {self.dtype}")
        if self.tol is not None:  # that nothing but the cut changes the function
            self._tried(edge, narrowed(edge, self.model, None, smaller=False).modules)
        self.walk, self.outputs = self._tried(edge, found.modules, cut=self.tol is not None)
        self._put(found.modules)
        self.changed |= dict.fromkeys(found.modules)
        return found

    def _put(self, modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """Put other modules in, and return those that were there."""
        old = {name: self.model.get_submodule(name) for name in modules}
        for name, module in modules.items():
            trained = any(q.requires_grad for q in old[name].parameters())
            self.model.set_submodule(name, module.requires_grad_(trained).eval())
        return old

    def _tried(
        self, edge: Edge, modules: dict[str, nn.Module], *, cut: bool = False
    ) -> tuple[Walk, list[Tensor]]:
        """Walk and outputs with other modules, for a while, if that is the function that it was."""
        old = self._put(modules)
        try:
            after = walk(self.model, self.inputs)
            outputs = self.trials.outputs(self.model)
            problem = other_constants(self.walk, after)
            apart = math.inf if problem else difference(self.outputs, outputs)
        except Exception as error:
            problem = f"the network fails with fewer channels: {str(error).splitlines()[0]}"
        finally:
            for name, module in old.items():
                self.model.set_submodule(name, module)
        if not problem and not cut and apart > _SAME:
            problem = f"the network with fewer channels differs by {apart:.1e}"
        if problem:
            self.wrong |= dict.fromkeys(edge.producers, problem)
            raise RefusalError(problem)
        return after, outputs

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

    def difference(self) -> float:
        """How far the network is from the first one."""
        return difference(self.first, self.outputs)

    def report(self) -> pd.DataFrame:
        """One row for each layer."""
        rest = [row for row in self.refused if row["name"] not in self.done]
        return pd.DataFrame([*self.done.values(), *rest], columns=list(_COLUMNS))


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise FoldError(f"the network cannot be copied: {error}") from error


def _dtype(model: nn.Module) -> torch.dtype:
    """The one dtype of the weights, which are finite and have values."""
    if not isinstance(model, nn.Module):
        raise FoldError(f"model is a {type(model).__name__}; a torch module is needed.")
    parameters = dict(model.named_parameters())
    if any(p.is_meta for p in parameters.values()):
        raise FoldError("weights lie on device='meta'; folding needs their values")
    dtypes = {p.dtype for p in parameters.values()}
    if len(dtypes) > 1:
        raise FoldError(f"weights have the dtypes {sorted(map(str, dtypes))}; convert them to one")
    for name, parameter in parameters.items():
        if not bool(parameter.isfinite().all()):
            raise NonFiniteError(f"weight '{name}' holds NaN or infinity; give finite weights")
    return dtypes.pop() if dtypes else torch.float32
