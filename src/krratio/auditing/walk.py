"""What a network computes, as a graph of operations: one forward on the meta device.

Unlike :mod:`krratio.networks.trace`, which takes linear networks and refuses the rest, this sees
whatever torch dispatches, also functional calls inside ``forward``. Nothing is computed and no
weight is allocated or read.
"""

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from krratio.auditing.errors import ForwardError
from krratio.auditing.kinds import Role, role_of
from krratio.networks.preserve import preserved

__all__ = ["Operation", "Walk", "tensors", "walk"]

Shape = tuple[int, ...]

_OWN = set(vars(nn.Module()))  # what torch itself keeps in every module, restored elsewhere


@dataclass(frozen=True)
class Operation:
    """One operation that torch dispatched.

    Attributes
    ----------
    name
        Of the operator, such as ``"convolution"``.
    module
        Path of the innermost module that was running; empty for the network itself.
    inputs, outputs
        Values read and made, by number; the network's inputs come first.
    arguments
        For each tensor argument in order: the number of a value, or the name of a weight.
    shapes
        Shape of each tensor argument.
    options
        The arguments that are no tensors, by position.
    """

    name: str
    module: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[int | str, ...]
    shapes: tuple[Shape, ...]
    options: Mapping[int, Any]


@dataclass(eq=False)
class Walk:
    """The operations of one forward, in order.

    Attributes
    ----------
    operations
        Those that depend on the inputs.
    shapes
        Of every value, with the batch.
    weights
        Name -> shape of all parameters and buffers; one tensor has one name, its first.
    trainable
        Names of those that are parameters.
    unseen
        (module, operator) of layers whose input did not come from the network's, as far as could be
        seen: constants, and values written into them.
    outputs
        Values that the network returns.
    """

    operations: list[Operation] = field(default_factory=list)
    shapes: dict[int, Shape] = field(default_factory=dict)
    weights: dict[str, Shape] = field(default_factory=dict)
    trainable: set[str] = field(default_factory=set)
    unseen: dict[tuple[str, str], None] = field(default_factory=dict)
    outputs: tuple[int, ...] = ()

    @property
    def parameters(self) -> int:
        """Entries of all parameters."""
        return sum(math.prod(self.weights[name]) for name in self.trainable)

    def readers(self) -> dict[int, list[int]]:
        """For each value the operations that read it."""
        found: dict[int, list[int]] = {value: [] for value in self.shapes}
        for i, operation in enumerate(self.operations):
            for value in dict.fromkeys(operation.inputs):
                found[value].append(i)
        return found

    def makers(self) -> dict[int, int]:
        """For each value the operation that made it."""
        return {value: i for i, op in enumerate(self.operations) for value in op.outputs}


def walk(model: nn.Module, inputs: Sequence[Shape]) -> Walk:
    """Run a network once on meta tensors, in eval mode, and write down what it does.

    Parameters
    ----------
    model
        Any module. It is left as it was: weights, mode, hooks, buffers and random state.
    inputs
        Shape of each input without the batch.

    Raises
    ------
    ForwardError
        The forward raises, or asks for values where there are only shapes; the message holds the
        path of the module that was running.
    """
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            raise ForwardError(f"parameter '{name}' has no shape yet: run the network on an input")
    recorder = _Recorder(model)
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())  # inputs have that of the weights
    given = [torch.empty((1, *shape), dtype=dtype, device="meta") for shape in inputs]
    for tensor in given:
        recorder.value(tensor)
    with preserved(model), _contents_kept(model), _watching(recorder), _no_fast_path():
        model.eval()
        try:
            with torch.no_grad(), recorder, torch.device("meta"):
                returned = torch.func.functional_call(model, recorder.stand_ins, tuple(given))
        except Exception as error:
            raise _explained(error, recorder, inputs) from error
    found = [recorder.numbers[id(t)] for t in tensors(returned) if id(t) in recorder.numbers]
    if not found:
        raise ForwardError(
            f"the network returns a {type(returned).__name__} in which no tensor that depends on "
            "the input was found; return tensors, or tuples, dicts or dataclasses of them"
        )
    recorder.walk.outputs = tuple(found)
    return recorder.walk


@contextmanager
def _contents_kept(model: nn.Module) -> Iterator[None]:
    """Put back what dicts, lists, sets and deques in a network held: caches fill in a forward."""
    kept: dict[int, tuple[Any, Any]] = {}

    def keep(value: Any) -> None:
        if isinstance(value, (dict, list, set, deque)) and id(value) not in kept:
            kept[id(value)] = value, copy.copy(value)
            for part in value.values() if isinstance(value, dict) else value:
                keep(part)

    for module in model.modules():
        for name, value in vars(module).items():
            if name not in _OWN:
                keep(value)
    try:
        yield
    finally:
        for value, before in kept.values():
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(before)


class _Recorder(TorchDispatchMode):
    """Numbers tensors as they come, and writes operations on them down."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.walk = Walk()
        self.numbers: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.kept: list[Tensor] = []  # alive, since tensors are known by their ids
        self.stack = [("", type(model).__name__)]
        self.paths = {id(module): name for name, module in model.named_modules()}
        self.stand_ins: dict[str, Tensor] = {}
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            self.stand_ins[name] = self._stand_in(name, weight)

    def _stand_in(self, name: str, weight: Tensor) -> Tensor:
        made = weight
        if not weight.is_meta:
            made = torch.empty_like(weight, device="meta", memory_format=torch.contiguous_format)
        self.names[id(made)] = name
        self.walk.weights[name] = tuple(weight.shape)
        if isinstance(weight, nn.Parameter):
            self.walk.trainable.add(name)
        self.kept.append(made)
        return made

    def value(self, tensor: Tensor) -> int:
        """The number of a tensor, a new one if it has none."""
        if id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = len(self.walk.shapes)
            self.walk.shapes[self.numbers[id(tensor)]] = tuple(tensor.shape)
            self.kept.append(tensor)
        return self.numbers[id(tensor)]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        given = list(tensors((args, kwargs or {})))
        known = [t for t in given if id(t) in self.numbers]
        made = list(tensors(returned))
        if known:
            self._write(func, args, given, made)
        else:
            if role_of(_operator(func)) in (Role.CONV, Role.MATRIX):
                self.walk.unseen[self.stack[-1][0], _operator(func)] = None
            roots = {self.names[id(t)] for t in given if id(t) in self.names}
            for tensor in made if len(roots) == 1 else ():  # a view of one weight is that weight
                self.names.setdefault(id(tensor), next(iter(roots)))
                self.kept.append(tensor)
        return returned

    def _write(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        given: list[Tensor],
        made: list[Tensor],
    ) -> None:
        arguments = [
            self.numbers[id(t)] if id(t) in self.numbers else self.names.get(id(t), "")
            for t in given
        ]
        inputs = tuple(a for a in arguments if isinstance(a, int))
        changed = {id(t) for t in given}
        for tensor in made:
            if id(tensor) in changed:  # in place: the tensor has a new value from here on
                self.numbers.pop(id(tensor), None)
        fresh = [self.value(tensor) for tensor in made]
        shapes = tuple(tuple(t.shape) for t in given)
        options = {i: a for i, a in enumerate(args) if not any(True for _ in tensors(a))}
        name = _operator(func)
        self.walk.operations.append(
            Operation(
                name, self.stack[-1][0], inputs, tuple(fresh), tuple(arguments), shapes, options
            )
        )


def _operator(func: Callable[..., Any]) -> str:
    return str(getattr(func, "overloadpacket", func).__name__)


@contextmanager
def _watching(recorder: _Recorder) -> Iterator[None]:
    """Know which module is running, by hooks on no module of its own."""

    def enter(module: nn.Module, _args: Any) -> None:
        if id(module) in recorder.paths:
            recorder.stack.append((recorder.paths[id(module)], type(module).__name__))

    def leave(module: nn.Module, _args: Any, _output: Any) -> None:
        if id(module) in recorder.paths:
            recorder.stack.pop()

    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Attention layer by layer: its fused kernel hides the layers in it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _explained(error: Exception, recorder: _Recorder, inputs: Sequence[Shape]) -> ForwardError:
    path, kind = recorder.stack[-1]
    where = f"module '{path}' ({kind})" if path else f"the network itself ({kind})"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    shapes = ", ".join(map(str, inputs))
    hint = ""
    if "meta" in text.lower() or "item()" in text or "data-dependent" in text.lower():
        hint = (
            "; the forward asks for the values of a tensor (control flow on data, .item(), "
            ".numpy()), of which only the shape is known here"
        )
    return ForwardError(f"{where} raised {type(error).__name__}: {text} (inputs {shapes}){hint}")


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dicts and dataclasses, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors(vars(value))
