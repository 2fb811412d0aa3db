"""Which modules may be rewritten: plain layers of torch, with one name and no other readers."""

from torch import nn

from krratio.auditing.structure.flow import Flow
from krratio.auditing.structure.layers import MixingLayer
from krratio.theory.fold import Conv

__all__ = ["RefusalError", "check_named_once", "check_plain", "module_at"]


class RefusalError(Exception):
    """Why something stays as it is; its text stands in the report."""


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path, or None where there is none."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def check_plain(flow: Flow, layer: MixingLayer, model: nn.Module) -> None:
    """Refuse layers whose module is not exactly a convolution or a linear layer used once."""
    module = module_at(model, layer.name)
    if module is None or type(module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear):
        raise RefusalError(f"{layer.name or 'a functional call'} is no plain module of torch")
    if sum(other.weight == layer.weight for other in flow.layers) > 1:
        raise RefusalError(f"the weights of {layer.name} are shared")
    check_named_once(flow, model, module, layer.name, layer.operation)
    if isinstance(module, Conv) and module.padding_mode != "zeros":
        raise RefusalError(f"{layer.name} pads by the mode {module.padding_mode!r}")


def check_named_once(flow: Flow, model: nn.Module, module: nn.Module, name: str, at: int) -> None:
    """Refuse modules with several names, with hooks, or whose weights something else reads."""
    names = [n for n, m in model.named_modules(remove_duplicate=False) if m is module]
    if len(names) > 1:
        raise RefusalError(f"{name} has several names: {', '.join(names)}")
    if module._forward_hooks or module._forward_pre_hooks:
        raise RefusalError(f"{name} has hooks")
    own = {f"{name}.{field}" for field, _ in [*module.named_parameters(), *module.named_buffers()]}
    for i, operation in enumerate(flow.walk.operations):
        if i != at and own & set(operation.arguments):
            raise RefusalError(f"the weights of {name} are used elsewhere too")
