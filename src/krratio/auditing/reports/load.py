"""The network that a command line names, and its checkpoint."""

import importlib
import pickle
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import nn

from krratio.auditing.errors import ModelError
from krratio.auditing.printable import printable
from krratio.errors import MissingExtraError

__all__ = ["build", "load_weights"]


def build(target: str) -> nn.Module:
    """Import ``MODULE:CALLABLE``, which runs its code, and call it without arguments.

    Weights come to lie on ``device="meta"`` where the constructor allows it.

    Raises
    ------
    ModelError
        There is no such module or callable, it raises, or it returns no network.
    """
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise ModelError(f"{target!r}: MODULE:CALLABLE is needed, such as my_models:resnet50")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise ModelError(f"{target!r} cannot be imported: {_said(error)}") from error
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise ModelError(f"{target!r} is a {type(found).__name__}; a callable or module is needed")
    try:
        with torch.device("meta"):
            model = found()
    except (Exception, SystemExit):  # a constructor that reads values: build it with them
        try:
            model = found()
        except (Exception, SystemExit) as error:
            raise ModelError(f"{target!r} raises when it is called: {_said(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{target!r} returns a {type(model).__name__}; a torch.nn.Module is needed"
        )
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Put a checkpoint into a network: a state dict by ``weights_only=True``, or safetensors.

    Raises
    ------
    ModelError
        The file is missing, damaged, holds more than tensors, or does not fit the network.
    MissingExtraError
        It is a safetensors file and that package is not installed.
    """
    if not path.is_file():
        raise ModelError(f"{path} cannot be read: there is no such file")
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    try:
        model.load_state_dict(state, assign=True)
    except Exception as error:
        raise ModelError(f"{path} does not fit the network: {_said(error)}") from error


def _safetensors(path: Path) -> Any:
    try:
        load_file = importlib.import_module("safetensors.torch").load_file
    except ImportError:
        raise MissingExtraError(
            f"{path} needs the package safetensors: pip install safetensors"
        ) from None
    try:
        return load_file(path)
    except Exception as error:
        raise ModelError(f"{path} is no whole safetensors file: {_said(error)}") from error


def _pickled(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} cannot be read as plain tensors: it is damaged, or holds objects whose "
            "loading would run code, which is refused; save model.state_dict() instead"
        ) from error
    except Exception as error:
        raise ModelError(f"{path} cannot be read as plain tensors: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """All of a short message on one line, and the beginning of a long one."""
    text = textwrap.shorten(str(error) or "no message", 300, placeholder=" ...")
    return printable(f"{type(error).__name__}: {text}")
