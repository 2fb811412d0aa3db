"""Sees every operation that torch dispatches, and numbers the values between them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from krratio.auditing.walking.kinds import BLANK, OVERWRITING, Role, role_of
from krratio.auditing.walking.memory import Memory, Write
from krratio.auditing.walking.operations import Operation, Walk

__all__ = ["Recorder", "WholeLayers", "tensors"]

_LISTED = (Role.CONV, Role.MATRIX, Role.RECURRENT)  # where they read constants


class Recorder(TorchDispatchMode):
    """Numbers tensors as they come, and writes operations on them down."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.walk = Walk()
        self.numbers: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.memory = Memory()
        self.paused = False
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
        self.memory.keep(made)
        return made

    def value(self, tensor: Tensor) -> int:
        """The number of a tensor, a new one if it has none."""
        if id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = self._new(tuple(tensor.shape))
            self.memory.keep(tensor)
        return self.numbers[id(tensor)]

    def known(self, tensor: Tensor) -> int | None:
        """The number of a tensor that depends on the network's inputs; None for others."""
        for write in self.memory.read(tensor):
            self._carry_over(write, tensor)
        return self.numbers.get(id(tensor))

    def record(self, name: str, args: tuple[Any, ...], kwargs: Any, returned: Any) -> None:
        """Write an operation down if it depends on the network's inputs."""
        given, made = list(tensors((args, kwargs))), list(tensors(returned))
        changed = {id(t) for t in given} & {id(t) for t in made}
        if name in OVERWRITING:
            given = given[1:]
        arguments = tuple(self._argument(tensor) for tensor in given)
        for tensor in made:
            self.memory.keep(tensor)
            if id(tensor) in changed:  # in place: the tensor has a new value from here on
                self.memory.read(tensor)
                self.numbers.pop(id(tensor), None)
        if not made:  # values that are read, such as the lengths of sequences
            return
        if name in BLANK or not any(isinstance(a, int) for a in arguments):
            self._constant(name, given, made)
            return
        shapes = tuple(tuple(t.shape) for t in given)
        named = {**dict(enumerate(args)), **(kwargs or {})}
        options = {i: a for i, a in named.items() if not any(True for _ in tensors(a))}
        self._append(name, arguments, tuple(map(self.value, made)), shapes, options)
        for tensor in made:
            if id(tensor) in changed:
                self.memory.wrote(tensor, self.numbers[id(tensor)])

    def _argument(self, tensor: Tensor) -> int | str:
        number = self.known(tensor)
        return self.names.get(id(tensor), "") if number is None else number

    def _constant(self, name: str, given: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        if name in BLANK:
            return
        if role_of(name) in _LISTED:
            self.walk.unseen[self.stack[-1][0], name] = None
        roots = {self.names[id(t)] for t in given if id(t) in self.names}
        for tensor in made if len(roots) == 1 else ():  # a view of one weight is that weight
            self.names.setdefault(id(tensor), next(iter(roots)))

    def _carry_over(self, write: Write, tensor: Tensor) -> None:
        """What was written into one tensor is read from another one in the same memory."""
        before = self.numbers.get(id(tensor))
        arguments = [write.value] if write.whole or before is None else [before, write.value]
        shapes = tuple(self.walk.shapes[value] for value in arguments)
        after = self.numbers[id(tensor)] = self._new(tuple(tensor.shape))
        name = "as_strided" if write.whole else "slice_scatter"
        self._append(name, tuple(arguments), (after,), shapes, {})

    def _append(
        self,
        name: str,
        arguments: tuple[int | str, ...],
        outputs: tuple[int, ...],
        shapes: tuple[tuple[int, ...], ...],
        options: Mapping[int | str, Any],
    ) -> None:
        inputs = tuple(a for a in arguments if isinstance(a, int))
        module = self.stack[-1][0]
        self.walk.operations.append(
            Operation(name, module, inputs, outputs, arguments, shapes, options)
        )

    def _new(self, shape: tuple[int, ...]) -> int:
        number = len(self.walk.shapes)
        self.walk.shapes[number] = shape
        return number

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        if not self.paused:
            name = str(getattr(func, "overloadpacket", func).__name__)
            self.record(name, args, kwargs or {}, returned)
        return returned


class WholeLayers(TorchFunctionMode):
    """Recurrent layers as one operation each: torch dispatches them step by step."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if role_of(name) is not Role.RECURRENT:
            return func(*args, **(kwargs or {}))
        self.recorder.paused = True
        try:
            returned = func(*args, **(kwargs or {}))
        finally:
            self.recorder.paused = False
        self.recorder.record(name, args, kwargs or {}, returned)
        return returned


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
