"""Folding: channel edges of a network rewritten with as many channels as can pass them."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from krratio.auditing.audit import shapes_of
from krratio.auditing.errors import FoldError
from krratio.auditing.flow import Flow
from krratio.auditing.kinds import Role
from krratio.auditing.layers import MixingLayer
from krratio.auditing.walk import Operation, tensors, walk
from krratio.theory.fold import fold_expansion

__all__ = ["FoldResult", "fold"]

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
Shape = tuple[int, ...]

_SAME = 1e-9  # relative difference of outputs, in float64, beyond which a fold was wrong
_ONES = ("unsqueeze", "squeeze")  # a mode of size one, behind the channels
_MOVES = (
    "view _unsafe_view _reshape_alias reshape flatten squeeze clone contiguous alias detach dropout"
).split()
_BETWEEN = {Role.BATCH_NORM, Role.AVERAGE, Role.MOVE, Role.RESIZE}


@dataclass(frozen=True, eq=False)
class FoldResult:
    """A folded network.

    Attributes
    ----------
    model : nn.Module
        A copy; the network that was given is as it was.
    report : DataFrame
        One row for each layer that puts channels out: ``name``, ``K`` before, ``channels`` after,
        ``reader``, ``saved`` parameters, ``error`` (relative, of the weights that were cut off; 0
        without ``tol``) and ``reason``: empty where it was folded, else what stands against it.
    difference : float
        Largest difference of both networks' outputs on random inputs over the largest output, in
        float64.
    """

    model: nn.Module
    report: pd.DataFrame
    difference: float


@dataclass(frozen=True)
class _Edge:
    """A layer, the norm behind it if there is one, and the one layer that reads it."""

    producer: MixingLayer
    norm: str | None
    reader: MixingLayer


class _RefusalError(Exception):
    """Why an edge cannot be folded."""


def fold(
    model: nn.Module, input_shape: Shape | Sequence[Shape], *, tol: float | None = None
) -> FoldResult:
    """Rewrite every foldable channel edge with the rank that can pass it.

    An edge folds where a convolution without groups is read by one convolution without groups or
    linear layer, with nothing between but BatchNorm, average pooling, resizing and flattening: then
    the K channels become as many as the smaller of both weights' ranks, one more where an offset
    meets zero padding. Nothing gets more parameters or multiply-adds.

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
        was = _module(model, name)
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
                edge = _edge(flow, layer, self.model, self.wrong)
                row |= {"reader": edge.reader.name} | self._fold(edge)
            except _RefusalError as refusal:
                self.refused.append(row | {"reason": str(refusal)})
                continue
            before = self.done.get(layer.name)
            if before is not None:
                row |= {"K": before["K"], "saved": before["saved"] + row["saved"]}  # type: ignore[operator]
            self.done[layer.name] = row
            return True
        return False

    def _fold(self, edge: _Edge) -> dict[str, object]:
        pair, found = _folded_pair(edge, self.model, self.tol)
        new = {edge.producer.name: pair[0], edge.reader.name: pair[1]}
        if edge.norm:
            new[edge.norm] = nn.Identity()
        old = {name: self.model.get_submodule(name) for name in new}
        for name, module in new.items():
            for parameter in module.parameters():
                parameter.requires_grad_(any(q.requires_grad for q in old[name].parameters()))
            self.model.set_submodule(name, module.eval())
        problem = self._problem()
        if problem:
            for name, module in old.items():
                self.model.set_submodule(name, module)
            self.wrong[edge.producer.name] = problem
            raise _RefusalError(problem)
        return found

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


def _edge(flow: Flow, layer: MixingLayer, model: nn.Module, wrong: dict[str, str]) -> _Edge:
    """The edge behind a layer, or the obstacle."""
    if layer.name in wrong:
        raise _RefusalError(wrong[layer.name])
    _plain(flow, layer, model)
    value, norm = layer.target, None
    for i in _path(flow, layer.target):
        operation = flow.walk.operations[i]
        role = flow.role(i)
        if i in flow.at:
            reader = flow.at[i]  # noqa: PD008 - no frame
            if reader.groups > 1:
                raise _RefusalError("a grouped or depthwise layer follows")
            if reader.kind == "linear" and len(flow.walk.shapes[reader.source]) != 2:
                raise _RefusalError("a linear layer follows along another axis")
            _plain(flow, reader, model)
            return _Edge(layer, norm, reader)
        if flow.joins(i):
            raise _RefusalError(f"a {role.value} of two values follows")
        if role not in _BETWEEN:
            raise _RefusalError(f"{role.value} ({operation.name}) follows")
        if role is Role.BATCH_NORM:
            if norm is not None or not isinstance(
                _module(model, operation.module), nn.modules.batchnorm._BatchNorm
            ):
                raise _RefusalError("two norms, or one that is no module, follow")
            if value != layer.target:
                raise _RefusalError("a norm follows behind pooling or flattening")
            norm = operation.module
            found = _module(model, norm)
            assert found is not None
            _named_once(flow, model, found, norm, i)
        _keeps_channels(flow, i)
        value = operation.outputs[0]
    raise _RefusalError("unreachable")  # _path ends at a layer or raises


def _path(flow: Flow, value: int) -> Iterator[int]:
    """The operations on the one path from a value to the next layer."""
    while True:
        if value in flow.walk.outputs:
            raise _RefusalError("its channels are an output of the network")
        readers = flow.readers[value]
        if len(readers) != 1:
            raise _RefusalError("nothing reads it" if not readers else "several layers read it")
        yield readers[0]
        value = flow.walk.operations[readers[0]].outputs[0]


def _keeps_channels(flow: Flow, i: int) -> None:
    operation = flow.walk.operations[i]
    before = flow.walk.shapes[operation.inputs[0]]
    after = flow.walk.shapes[operation.outputs[0]]
    role = flow.role(i)
    if role is Role.MOVE:
        flat = len(after) == 2 and after[:1] == before[:1]
        ones = operation.name in _ONES and after[:2] == before[:2]
        same = operation.name in _MOVES and after == before
        if not (ones or same or (operation.name in _MOVES and flat)):
            raise _RefusalError("its channels are moved")
    elif len(after) < 2 or after[1] != before[1]:
        raise _RefusalError(f"{role.value} over channels follows")
    if role is Role.AVERAGE:
        _plain_average(operation, len(before))


def _plain_average(operation: Operation, modes: int) -> None:
    """Refuse what averages over channels, pads, or divides by another number than it sums."""
    lists = {i: o for i, o in operation.options.items() if isinstance(o, list | tuple)}
    if operation.name.startswith("avg_pool"):
        if any(lists.get(3, ())):
            raise _RefusalError("padded pooling follows")
        if operation.options.get(6) is not None or operation.options.get(4):
            raise _RefusalError("pooling with another divisor follows")
    elif operation.name == "mean":
        axes = {axis % modes for axis in lists.get(1, range(modes))}
        if axes & {0, 1}:
            raise _RefusalError("a mean over channels follows")
    elif operation.name == "sum":
        raise _RefusalError("a sum over places follows")


def _plain(flow: Flow, layer: MixingLayer, model: nn.Module) -> None:
    """Refuse layers whose module is not exactly a convolution or a linear layer used once."""
    module = _module(model, layer.name)
    if module is None or type(module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear):
        raise _RefusalError(f"{layer.name or 'a functional call'} is no plain module of torch")
    if sum(other.weight == layer.weight for other in flow.layers) > 1:
        raise _RefusalError(f"the weights of {layer.name} are shared")
    _named_once(flow, model, module, layer.name, layer.operation)
    if isinstance(module, Conv) and module.padding_mode != "zeros":
        raise _RefusalError(f"{layer.name} pads by the mode {module.padding_mode!r}")


def _named_once(flow: Flow, model: nn.Module, module: nn.Module, name: str, at: int) -> None:
    """Refuse modules with several names, with hooks, or whose weights something else reads."""
    names = [n for n, m in model.named_modules(remove_duplicate=False) if m is module]
    if len(names) > 1:
        raise _RefusalError(f"{name} has several names: {', '.join(names)}")
    if module._forward_hooks or module._forward_pre_hooks:
        raise _RefusalError(f"{name} has hooks")
    own = {f"{name}.{field}" for field, _ in [*module.named_parameters(), *module.named_buffers()]}
    for i, operation in enumerate(flow.walk.operations):
        if i != at and own & set(operation.arguments):
            raise _RefusalError(f"the weights of {name} are used elsewhere too")


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _folded_pair(
    edge: _Edge, model: nn.Module, tol: float | None
) -> tuple[tuple[nn.Module, nn.Module], dict[str, object]]:
    """Producer and reader with fewer channels between, and what came of it."""
    producer, reader = (_module(model, layer.name) for layer in (edge.producer, edge.reader))
    if edge.producer.groups > 1:
        raise _RefusalError("it has groups")
    if not isinstance(producer, Conv):
        raise _RefusalError("it is a linear layer")
    assert isinstance(reader, Conv | nn.Linear)
    norm = _module(model, edge.norm) if edge.norm else None
    weight, offset = _with_norm(producer, norm)
    K = len(weight)
    left, sizes, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    rank = len(sizes) if tol is None else max(1, int((sizes > tol * sizes[0]).sum()))
    error = float(sizes[rank:].norm() / sizes.norm().clamp_min(1e-300))
    rows = reader.weight.detach().reshape(len(reader.weight), K, -1)
    by_channel = rows.permute(0, 2, 1).flatten(0, 1)  # (outputs and places, K)
    expansion = _pointwise(producer, left[:, :rank] * sizes[:rank], offset)
    narrow, folded = fold_expansion(expansion, reader)
    pair: tuple[nn.Module, nn.Module] = _composed(producer, right[:rank], narrow), folded
    if len(by_channel) < len(next(pair[0].parameters())):
        pair, error = _from_reader(producer, reader, weight, offset, by_channel), 0.0
    channels = len(next(pair[0].parameters()))
    old = sum(p.numel() for m in (producer, reader) for p in m.parameters())
    saved = old - sum(p.numel() for m in pair for p in m.parameters())
    if channels >= K or saved <= 0:
        raise _RefusalError(f"its {K} channels are no more than what can pass")
    saved += sum(p.numel() for p in norm.parameters()) if norm is not None else 0
    return pair, {"channels": channels, "saved": saved, "error": error}


def _with_norm(conv: Conv, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Weight and offset of a convolution, with BatchNorm in eval mode absorbed."""
    weight = conv.weight.detach()
    offset = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    if norm is None:
        return weight, offset
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    if norm.running_mean is None or norm.running_var is None:
        raise _RefusalError("a norm without running statistics follows")
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach()
    shift = 0.0 if norm.bias is None else norm.bias.detach()
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight * shaped, (offset - norm.running_mean) * scale + shift


def _pointwise(like: Conv, matrix: Tensor, offset: Tensor) -> Conv:
    K, rank = matrix.shape
    made: Conv = type(like)(rank, K, 1, dtype=torch.float64)
    state = {"weight": matrix.reshape(made.weight.shape), "bias": offset}
    made.load_state_dict(state)
    return made


def _composed(conv: Conv, filters: Tensor, narrow: nn.Module) -> nn.Module:
    """The convolution with ``filters`` (rank, C·l), then the pointwise one, as one convolution."""
    assert isinstance(narrow, Conv)
    weight = narrow.weight.detach().flatten(1) @ filters
    return _conv(conv, weight, None if narrow.bias is None else narrow.bias.detach())


def _from_reader(
    conv: Conv, reader: Conv | nn.Linear, weight: Tensor, offset: Tensor, by_channel: Tensor
) -> tuple[nn.Module, nn.Module]:
    """Fewer outputs than channels: the reader's own combinations are all that is needed."""
    left, sizes, right = torch.linalg.svd(by_channel, full_matrices=False)
    rank = len(sizes)
    bias = right @ offset if bool((offset != 0).any()) else None
    narrow = _conv(conv, right @ weight.flatten(1), bias)
    rows = (left * sizes).reshape(len(reader.weight), -1, rank).permute(0, 2, 1)
    outer = None if reader.bias is None else reader.bias.detach()
    if isinstance(reader, nn.Linear):
        folded = nn.Linear(rows[0].numel(), len(rows), bias=outer is not None, dtype=torch.float64)
        state = {"weight": rows.flatten(1)} | ({} if outer is None else {"bias": outer})
        folded.load_state_dict(state)
        return narrow, folded
    return narrow, _conv(reader, rows.flatten(1), outer)


def _conv(like: Conv, weight: Tensor, bias: Tensor | None) -> Conv:
    """A convolution of the geometry of ``like`` with weight (out, in · window)."""
    window = math.prod(like.kernel_size)
    made: Conv = type(like)(
        weight.shape[1] // window,
        len(weight),
        like.kernel_size,  # type: ignore[arg-type]  # one size per mode of its own kind
        stride=like.stride,  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        dilation=like.dilation,  # type: ignore[arg-type]
        bias=bias is not None,
        dtype=torch.float64,
    )
    state = {"weight": weight.reshape(made.weight.shape)} | ({} if bias is None else {"bias": bias})
    made.load_state_dict(state)
    return made


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
