"""What a network computes, as a graph of operations: one forward on the meta device.

Unlike :mod:`krratio.networks.trace`, which takes linear networks and refuses the rest, this sees
whatever torch dispatches, also functional calls inside ``forward``. Nothing is computed and no
weight is allocated or read.
"""

import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import transformer
from torch.nn.parameter import is_lazy

from krratio.auditing.errors import ForwardError, ModelError
from krratio.auditing.printable import printable
from krratio.auditing.walking.inputs import Inputs, arguments, described, on_meta
from krratio.auditing.walking.operations import Walk
from krratio.auditing.walking.recorder import Recorder, WholeLayers, tensors
from krratio.networks.preserve import preserved

__all__ = ["Progress", "walk"]

Progress = Callable[[int, int], None]

_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)
_OWN = set(vars(nn.Module()))  # what torch itself keeps in every module, restored elsewhere


def walk(model: nn.Module, inputs: Inputs, progress: Progress | None = None) -> Walk:
    """Run a network once on meta tensors, in eval mode, and write down what it does.

    Parameters
    ----------
    model
        Any module. It is left as it was: weights, mode, hooks, buffers, attributes, what lies in
        its containers and in objects that it holds, and the random states of torch, Python and
        numpy. What a forward writes elsewhere cannot be seen: into attributes of classes, globals,
        files, ``__slots__`` or entries of arrays.
    inputs
        Its arguments, a list by position or a dict by name: shapes without the batch, or tensors.
    progress
        Called with the number of modules that were entered, and of all.

    Raises
    ------
    ModelError
        It is no module.
    ForwardError
        The forward raises, or asks for values where there are only shapes; the message holds the
        path of the module that was running.
    """
    _check(model)
    recorder = Recorder(model)
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(floats, torch.get_default_dtype())  # shapes have that of the weights
    args, kwargs = arguments(inputs, on_meta(dtype))
    for tensor in tensors((args, kwargs)):
        recorder.value(tensor)
    with (
        _random_kept(),
        preserved(model),
        _contents_kept(model),
        _watching(recorder, progress),
        _no_fast_path(),
    ):
        model.eval()
        try:
            with torch.no_grad(), recorder, torch.device("meta"), WholeLayers(recorder):
                returned = torch.func.functional_call(model, recorder.stand_ins, args, kwargs)
        except (Exception, SystemExit) as error:
            raise _explained(error, recorder, inputs) from error
    numbers = [recorder.known(tensor) for tensor in tensors(returned)]
    found = tuple(number for number in numbers if number is not None)
    if not found:
        raise ForwardError(
            f"the network returns a {type(returned).__name__} in which no tensor that depends on "
            "the input was found; return tensors, or tuples, dicts or dataclasses of them"
        )
    recorder.walk.outputs = found
    return recorder.walk


def _check(model: object) -> None:
    """Refuse what is no module, what hides its own, and weights without shapes."""
    if not isinstance(model, nn.Module):
        call = ", not its class: call that first" if isinstance(model, type) else ""
        raise ModelError(f"{model!r} cannot be audited: a torch.nn.Module is needed{call}")
    if isinstance(model, (torch.jit.ScriptModule, nn.DataParallel)):
        raise ForwardError(
            f"a {type(model).__name__} cannot be watched: audit the module that it was made of"
        )
    for name, weight in model.named_parameters():
        if is_lazy(weight):
            raise ForwardError(f"parameter '{name}' has no shape yet: run the network on an input")


@contextmanager
def _random_kept() -> Iterator[None]:
    """Put back the random states of Python and of numpy; torch's is put back with the rest."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - others may draw from it
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def _contents_kept(model: nn.Module) -> Iterator[None]:
    """Put back what containers and plain objects in a network held: caches fill in a forward."""
    kept: dict[int, tuple[Any, Any]] = {}
    open_ = [v for m in model.modules() for name, v in vars(m).items() if name not in _OWN]
    while open_:
        value = _held(open_.pop())
        if value is not None and id(value) not in kept:
            kept[id(value)] = value, (dict if isinstance(value, dict) else list)(value)
            open_ += value.values() if isinstance(value, dict) else value
    try:
        yield
    finally:
        for value, before in kept.values():
            value.clear()
            (value.extend if isinstance(value, (list, deque)) else value.update)(before)


def _held(value: Any) -> Any:
    """The container that a value is, or the attributes of a plain object; None for all others."""
    if isinstance(value, (dict, list, set, deque)):
        return value
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, (nn.Module, Tensor, type, *_CODE)):
        return None
    foreign = type(value).__module__.partition(".")[0] in sys.stdlib_module_names
    if foreign and not isinstance(value, types.SimpleNamespace):  # locks, loggers
        return None
    attributes = getattr(value, "__dict__", None)
    return attributes if isinstance(attributes, dict) else None


@contextmanager
def _watching(recorder: Recorder, progress: Progress | None) -> Iterator[None]:
    """Know which module is running, by hooks on no module of its own."""
    entered: set[int] = set()

    def enter(module: nn.Module, _args: Any) -> None:
        if id(module) not in recorder.paths:
            return
        recorder.stack.append((recorder.paths[id(module)], type(module).__name__))
        if progress is not None and id(module) not in entered:
            entered.add(id(module))
            progress(len(entered), len(recorder.paths))

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
    """Attention layer by layer: its fused kernel hides the layers in it.

    Torch's encoder also reads the values of a mask, only to choose a faster kernel if it is causal.
    """
    before, detect = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = _as_was_said
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        transformer._detect_is_causal_mask = detect


def _as_was_said(
    mask: Tensor | None, is_causal: bool | None = None, size: int | None = None
) -> bool:
    del mask, size  # whose values are not known
    return bool(is_causal)


def _explained(error: BaseException, recorder: Recorder, inputs: Inputs) -> ForwardError:
    path, kind = recorder.stack[-1]
    where = f"module '{path}' ({kind})" if path else f"the network itself ({kind})"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    hint = ""
    if "Long, Int" in text or "indices" in text:
        hint = (
            "; for integer inputs give a tensor, such as torch.zeros(1, 77, dtype=torch.long), "
            "instead of a shape; on the command line --input long:77"
        )
    elif "meta" in text.lower() or "item()" in text or "data-dependent" in text.lower():
        hint = (
            "; the forward asks for the values of a tensor (control flow on data, .item(), "
            ".numpy()), of which only the shape is known here"
        )
    said = f"{type(error).__name__}: {text} (inputs {described(inputs)})"
    return ForwardError(printable(f"{where} raised {said}{hint}"))
