"""From a torch module to a graph of specs, by one run that computes nothing.

The module runs on a meta tensor while every torch function it calls is answered by the rules, so
control flow on shapes works, no weight is read and nothing of the module changes.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode, resolve_name

from krratio.errors import NonFiniteError, ShapeError, UnsupportedModuleError
from krratio.networks.graph import INPUT, Graph, Node, prune
from krratio.networks.layers import Layer, Reindex, Shape
from krratio.networks.preserve import preserved
from krratio.networks.rules import METADATA, MOVES, RULES, RefusalError, why_unsupported

__all__ = ["trace"]


def trace(model: nn.Module, input_shape: Shape) -> Graph:
    """Write a linear network as a graph of layer specs; its weights are referred to, not copied.

    Parameters
    ----------
    model
        Any module made of convolutions, average pooling, BatchNorm and Dropout in eval mode, linear
        layers, reshapes, shuffles, sums and concatenations; it may lie on ``device="meta"``.
    input_shape
        (C, d_1, ..., d_N) with N = 1, 2, 3, or (C,) for a fully connected network; no batch.

    Returns
    -------
    Graph
        Only the nodes that reach the output.

    Raises
    ------
    UnsupportedModuleError
        Something is not linear or has no rule; the message names the module's path and type.
    ShapeError
        ``input_shape`` does not fit; the message holds both shapes and the layer.
    NonFiniteError
        A weight holds NaN or infinity; the message holds its name.
    """
    shape = _checked_shape(input_shape)
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    _refuse_untraceable(model)
    with torch.device("cpu"):  # whatever the default device is
        graph = _run(model, shape, batch=2)
        again = _run(model, shape, batch=3)
    if not _same(graph, again):
        raise UnsupportedModuleError(
            "the network is another one for 2 images than for 3: it uses the batch size or draws "
            "random numbers; make its layers independent of both"
        )
    _refuse_bad_weights(model, graph)
    return graph


def _run(model: nn.Module, shape: Shape, batch: int) -> Graph:
    """Run the module once on a stand-in for ``batch`` images, so that mixing of images is seen."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float64)
    tracer = _Tracer(shape, batch)
    x = tracer.stand_for(INPUT, torch.empty((batch, *shape), dtype=dtype, device="meta"))
    with preserved(model), tracer.watching(model), torch.no_grad(), tracer:
        torch.default_generator.manual_seed(batch)  # so that random layers show
        y = model(x)
    if not isinstance(y, Tensor) or not tracer.is_traced(y):
        raise UnsupportedModuleError(
            f"the network returns {type(y).__name__} where one tensor that depends on the input is "
            "allowed; wrap it in a module that returns that tensor"
        )
    try:
        output = tracer.source(y)
    except (RefusalError, ShapeError) as refusal:
        raise UnsupportedModuleError(f"the network's output cannot be used: {refusal}") from None
    return prune(Graph(shape, tuple(tracer.nodes), output))


def _same(one: Graph, other: Graph) -> bool:
    """Whether two runs met the same layers with the same settings; weights may be recomputed."""
    return (
        one.output == other.output
        and len(one.nodes) == len(other.nodes)
        and all(map(_same_node, one.nodes, other.nodes))
    )


def _same_node(one: Node, other: Node) -> bool:
    if type(one.layer) is not type(other.layer) or one.inputs != other.inputs:
        return False
    for name, value in vars(one.layer).items():
        twin = vars(other.layer)[name]
        if isinstance(value, Tensor) and isinstance(twin, Tensor):
            same = value is twin or value.is_meta or torch.equal(value, twin)
        else:
            same = value == twin
        if not same:
            return False
    return one.shape == other.shape


def _checked_shape(input_shape: Shape) -> Shape:
    whole = isinstance(input_shape, Sequence) and all(
        isinstance(d, SupportsIndex) and not isinstance(d, bool) for d in input_shape
    )
    shape = tuple(map(operator.index, input_shape)) if whole else ()
    if not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise ShapeError(
            f"input_shape {input_shape!r} is not (C, d_1, ..., d_N) with N = 1, 2, 3 or (C,), "
            "all positive integers and without the batch"
        )
    return shape


def _refuse_untraceable(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise UnsupportedModuleError(f"a {type(model).__name__} was given; give a torch.nn.Module")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModuleError(
                f"module '{name}' is compiled by TorchScript, which hides its layers; give the "
                "module it was made from"
            )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UnsupportedModuleError(
                f"parameter '{name}' is not initialized yet; run the network once on a real input"
            )


def _refuse_bad_weights(model: nn.Module, graph: Graph) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    names = {id(tensor): name for name, tensor in tensors}
    for node, field, weight in graph.weights():
        name = names.get(id(weight), f"{field} of {node.name}")
        if not weight.is_floating_point() or weight.layout != torch.strided:
            raise UnsupportedModuleError(
                f"weight '{name}' is {weight.dtype}, {weight.layout}; real dense floats are allowed"
            )
        if weight.is_meta or bool(torch.isfinite(weight).all()):
            continue
        bad = int((~torch.isfinite(weight)).sum())
        raise NonFiniteError(
            f"weight '{name}' holds {bad} values of {weight.numel()} that are NaN or infinite; "
            "only finite weights make a tensor: look at the training that produced it"
        )


@dataclass(eq=False)
class _Value:
    """A traced tensor: which node it comes from and where its elements lie in that node's value."""

    tensor: Tensor  # kept alive, since it is known by its id
    node: int
    index: Tensor | None = None  # (batch, *shape); None where nothing has moved


class _Tracer(TorchFunctionMode):
    """Answers torch functions by the rules; implements :class:`krratio.networks.rules.Tracer`."""

    def __init__(self, input_shape: Shape, batch: int) -> None:
        super().__init__()
        self.input_shape, self.batch = input_shape, batch
        self.nodes: list[Node] = []
        self.values: dict[int, _Value] = {}
        self.stack: list[tuple[str, str]] = []

    # -- what the rules ask ------------------------------------------------------------------

    def is_traced(self, x: object) -> bool:
        return id(x) in self.values

    def shape(self, x: Tensor) -> Shape:
        return tuple(x.shape[1:])

    def emit(self, layer: Layer, *inputs: Tensor) -> Tensor:
        shapes = [self.shape(x) for x in inputs]
        shape = layer.output_shape(*shapes)
        sources = tuple(self.source(x) for x in inputs)
        self.nodes.append(Node(self.label(), layer, sources, shape))
        empty = torch.empty((self.batch, *shape), dtype=inputs[0].dtype, device="meta")
        return self.stand_for(len(self.nodes) - 1, empty)

    def rebind(self, target: Tensor, value: Tensor) -> Tensor:
        storage = target.untyped_storage()._cdata
        for other in self.values.values():
            if other.tensor is not target and other.tensor.untyped_storage()._cdata == storage:
                raise RefusalError(
                    "it changes in place a tensor that has views; write x = x + y instead"
                )
        if target.shape != value.shape:
            raise RefusalError("it changes a shape in place; write x = x + y instead")
        self.values[id(target)] = _Value(target, self.values[id(value)].node)
        return target

    # -- bookkeeping -------------------------------------------------------------------------

    def stand_for(self, node: int, tensor: Tensor, index: Tensor | None = None) -> Tensor:
        self.values[id(tensor)] = _Value(tensor, node, index)
        return tensor

    def source(self, x: Tensor) -> int:
        """Node whose value ``x`` is, after writing down what moved since."""
        value = self.values[id(x)]
        if value.index is not None:
            value.node, value.index = self._write_move(value), None
        return value.node

    def _write_move(self, value: _Value) -> int:
        assert value.index is not None
        before = self.input_shape if value.node == INPUT else self.nodes[value.node].shape
        after, size = tuple(value.tensor.shape[1:]), math.prod(before)
        first = value.index[:1].reshape(-1)
        if len(value.index) != self.batch or first.numel() * self.batch != value.index.numel():
            given = tuple(value.index.shape)
            raise ShapeError(
                f"{self.batch} images of shape {before} were reshaped to {given}: the images do "
                "not have the size that the network expects, or the first mode is not the batch"
            )
        later = torch.arange(1, self.batch)[:, None] * size
        if not torch.equal(value.index.reshape(self.batch, -1)[1:], first + later):
            raise RefusalError("it mixes images of a batch; keep the batch the first mode")
        kept = len(first) == size and torch.equal(first, torch.arange(size))
        if kept and before == after:
            return value.node
        move = Reindex(before, after, None if kept else first)
        self.nodes.append(Node(self.label(), move, (value.node,), after))
        return len(self.nodes) - 1

    def label(self) -> str:
        path, kind = self.stack[-1] if self.stack else ("", "network")
        return f"'{path}' ({kind})" if path else f"{kind} (the model itself)"

    def where(self) -> str:
        return f"module {self.label()}"

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know at any time which module is running; leaves no hook behind."""
        handles = []

        def enter(name: str) -> Callable[..., None]:
            return lambda module, _: self.stack.append((name, type(module).__name__))

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            self.stack.pop()

        try:
            for name, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
                handles.append(module.register_forward_hook(leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    # -- what torch calls --------------------------------------------------------------------

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not any(self.is_traced(x) for x in _flat((args, kwargs))):
            return func(*args, **kwargs)
        try:
            return self._answer(func, args, kwargs)
        except (RefusalError, NonFiniteError) as refusal:
            kind = UnsupportedModuleError if isinstance(refusal, RefusalError) else NonFiniteError
            raise kind(f"{self.where()} calls {_name(func)}: {refusal}") from None
        except ShapeError as error:
            raise ShapeError(f"{self.where()}: {error} (input_shape {self.input_shape})") from None

    def _answer(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func in RULES:
            return RULES[func](self, *args, **kwargs)
        if func in MOVES:
            return self._move(func, args, kwargs)
        name = _name(func)
        if name.removeprefix("torch.Tensor.") in METADATA:
            return func(*args, **kwargs)
        raise RefusalError(why_unsupported(name))

    def _move(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = self.values.get(id(args[0])) if args else None
        if value is None:
            raise RefusalError(
                "it moves a tensor that it is not given first; call it as x.view(...)"
            )
        size = math.prod(self.input_shape if value.node == INPUT else self.nodes[value.node].shape)
        index = value.index
        if index is None:
            index = torch.arange(self.batch * size, device="cpu").reshape(value.tensor.shape)
        try:
            moved, places = func(*args, **kwargs), func(index, *args[1:], **kwargs)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise ShapeError(f"{_name(func)} of {self.batch} images: {error}") from error
        if isinstance(moved, Tensor):
            return self.stand_for(value.node, moved, places)
        pairs = zip(moved, places, strict=True)
        return type(moved)(self.stand_for(value.node, m, p) for m, p in pairs)


def _name(func: Callable[..., Any]) -> str:
    return str(resolve_name(func) or getattr(func, "__name__", repr(func)))


def _flat(values: Any) -> Iterator[object]:
    if isinstance(values, dict):
        values = tuple(values.values())
    if isinstance(values, (tuple, list)):
        for value in values:
            yield from _flat(value)
    else:
        yield values
