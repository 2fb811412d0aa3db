"""Decomposition: the convolutions of a network rewritten as low-rank blocks."""

import copy
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from krratio.rewriting.decomposing.formats import FORMATS, Approximation, Format, OutOfReachError
from krratio.rewriting.decomposing.layers import convolutions, obstacle, require_values, tied
from krratio.rewriting.decomposing.parts import as_stored, composed
from krratio.rewriting.decomposing.ranks import Ranks, Request, along_ray, coupled, requested
from krratio.rewriting.decomposing.replacements import replacement
from krratio.rewriting.errors import DecomposeError
from krratio.theory.fold import Conv

__all__ = ["DEGENERATE", "DecomposeResult", "decompose"]

DEGENERATE = 100.0  # degeneracy from which relative changes of single terms are amplified tenfold

_COLUMNS = {
    "name": "str",
    "method": "str",
    "rank": "object",
    "error": "float64",
    "params_before": "int64",
    "params_after": "int64",
    "K": "int64",
    "R": "Int64",
    "ratio": "float64",
    "degeneracy_als": "float64",
    "degeneracy": "float64",
    "degenerate": "bool",
    "seconds": "float64",
    "reason": "str",
}


@dataclass(frozen=True, eq=False)
class DecomposeResult:
    """A network with low-rank blocks in place of convolutions.

    Attributes
    ----------
    model : nn.Module
        A copy; the network that was given is as it was.
    report : DataFrame
        One row for each convolution, in the order of ``named_modules``:

        ``name``, ``method``
        ``rank``
            Tuple of the ranks in each group: (R₁, R₂), (R,) or the bonds; empty if not replaced.
        ``error``
            Relative, in the Frobenius norm, of the block's kernel, all groups, in the layer's
            dtype; 0 if not replaced.
        ``params_before``, ``params_after``
            With bias.
        ``K``, ``R``, ``ratio``
            Channels of the output, channels that enter the block's last convolution, and K/R;
            missing if not replaced.
        ``degeneracy_als``, ``degeneracy``
            CP only: sum of the squared norms of the terms over the squared norm of their sum, as
            least squares left them and after correction. 1 for orthogonal terms.
        ``degenerate``
            ``degeneracy`` above 100: independent relative changes of the terms come out at least
            tenfold, being amplified by its square root.
        ``seconds``
        ``reason``
            Empty if replaced, else what stands against it.
    """

    model: nn.Module
    report: pd.DataFrame

    @property
    def parameters_after(self) -> int:
        """Parameters of the new network, shared ones once, lazy ones without a shape not."""
        return _size(self.model)

    @property
    def parameters_before(self) -> int:
        """Parameters of the network that was given, counted as in the new one."""
        saved = self.report["params_before"] - self.report["params_after"]
        return self.parameters_after + int(saved.sum())


def decompose(
    model: nn.Module,
    *,
    method: str = "tucker",
    rank: int | tuple[int, ...] | str,
    layers: Iterable[str] | None = None,
) -> DecomposeResult:
    """Replace every convolution by a low-rank block that approximates it.

    A ``Sequential`` stands under the layer's name. Its convolutions have the layer's stride,
    padding (of any mode), dilation and groups, each group being decomposed by itself; the bias is
    on the last. Dtype, device, training mode and ``requires_grad`` stay; what is computed is
    computed in float64. Nothing is replaced by more parameters than it had. Multiply-adds are
    another matter: behind a stride a Tucker or CP block reduces channels on the larger grid; see
    :func:`krratio.audit` of both.

    Parameters
    ----------
    model
        Any module; a copy is changed. A convolution with several names is replaced under all.
    method
        ``"tucker"``
            1×1 (C -> R₁), spatial (R₁ -> R₂), 1×1 (R₂ -> K): ``reduce``, ``spatial``, ``expand``.
            HOSVD, then HOOI.
        ``"cp"``
            1×1 (C -> R), depthwise, 1×1 (R -> K), under the same names. The best of several runs of
            alternating least squares, then the terms of least norm whose error is at most 1 % above
            theirs (Phan et al. 2020).
        ``"tt"``
            One convolution along each spatial mode: ``along_1``, ... TT-SVD, which for two modes is
            the best approximation. Needs two modes.
    rank
        An integer: every rank in each group, cut to what the layer can have.
        A tuple: (R₁, R₂), (R,), or the bonds.
        ``"energy:p"``, 0 < p <= 1: ranks that keep at least the share p of the squared norm.
        Tucker and TT take, of all ranks for which the sum of what the unfoldings leave out is at
        most 1 - p, those with the fewest parameters; CP the first of 1, 2, 3, 4, 6, 8, 12, ... that
        does, from the rank that the unfoldings need, which is tried too. Rounding the weights to
        the layer's dtype comes after that.
        ``"params:q"``, 0 < q: the largest ranks with at most q times the layer's parameters, bias
        included, in the proportion of the largest ranks that the layer can have.
    layers
        Names of the convolutions to take; None takes all.

    Returns
    -------
    DecomposeResult

    Raises
    ------
    DecomposeError
        An argument is not as above, a tuple is more than a layer can have, weights lie on
        ``device="meta"``, or the network cannot be copied.
    NonFiniteError
        A weight to be decomposed holds NaN or infinity.

    Notes
    -----
    Kernels of the three blocks: chapter 02. Only modules are seen: what reads a layer's weight
    past its forward, or keeps the layer in a plain list, is not told that it is gone.
    """
    request = requested(rank)
    if method not in FORMATS:
        raise DecomposeError(
            f"method={method!r}: one of {', '.join(map(repr, FORMATS))} is needed."
        )
    if not isinstance(model, nn.Module):
        raise DecomposeError(f"model is a {type(model).__name__}; a torch module is needed.")
    found, shared = convolutions(model, layers), tied(model)
    reasons = {name: _reason(conv, method, shared, asked=asked) for name, conv, asked in found}
    for name, conv, _ in found:
        if not reasons[name] and isinstance(conv, Conv):
            require_values(conv, name)
            _require_attainable(_format(conv, method, name), request)
    copied = _copied(model)
    modules, rows = dict(copied.named_modules()), []
    for name, _, _ in found:
        old = modules[name]
        row, block = _decomposed(old, name, method, request, reasons[name])
        if block is not None:
            copied = _with(copied, old, block)
        rows.append(row)
    report = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    return DecomposeResult(copied, report)


def _reason(conv: nn.Module, method: str, shared: set[int], *, asked: bool) -> str:
    if not asked:
        return "not among layers="
    against = obstacle(conv, shared)
    if against or not isinstance(conv, Conv):
        return against
    return FORMATS[method].obstacle(len(conv.kernel_size))


def _format(conv: Conv, method: str, name: str) -> Format:
    return FORMATS[method](conv.weight.detach(), conv.groups, name)


def _require_attainable(form: Format, request: Request) -> None:
    """Refuse tuples of another length, or with more than the layer can have."""
    if request.kind != "tuple":
        return
    given, most = request.ranks, form.most
    if len(given) != len(most):
        raise DecomposeError(
            f"rank={given}: layer {form.name!r} takes {len(most)} ({form.ranks_of}), "
            f"not {len(given)}."
        )
    if coupled(given, most, form.coupling) != given:
        raise DecomposeError(
            f"rank={given}: layer {form.name!r} can have at most {most}"
            + (f", neither more than {form.coupling} times the other" if len(most) > 1 else "")
            + "; give less, an integer, which is cut to that, or leave the layer out with layers=."
        )


def _copied(model: nn.Module) -> nn.Module:
    """A copy; weights that hooks compute before each forward, as pruning does, are cut off."""
    computed = [
        tensor
        for module in model.modules()
        for tensor in vars(module).values()
        if isinstance(tensor, Tensor) and not tensor.is_leaf
    ]
    try:
        return copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in computed})
    except Exception as error:
        raise DecomposeError(f"the network cannot be copied: {error}") from error


def _with(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """The network with one module for another, under each of its names."""
    if model is old:
        return new
    for parent in model.modules():
        for key in [key for key, child in parent._modules.items() if child is old]:
            parent._modules[key] = new
    return model


def _decomposed(
    conv: nn.Module, name: str, method: str, request: Request, reason: str
) -> tuple[dict[str, object], nn.Module | None]:
    """Its row of the report, and the block if there is one."""
    start, before = time.perf_counter(), _size(conv)
    row: dict[str, object] = dict.fromkeys(_COLUMNS, math.nan)
    row |= {"name": name, "method": method, "rank": (), "error": 0.0, "degenerate": False}
    row |= {"K": conv.out_channels, "R": None, "params_before": before, "params_after": before}
    block = None
    if not reason and isinstance(conv, Conv):
        try:
            ranks, approximation, form = _approximated(conv, name, method, request)
        except OutOfReachError as obstacle:
            reason = str(obstacle)
        else:
            block = replacement(conv, approximation.parts)
            row |= _found(form, ranks, approximation, block)
    return row | {"seconds": time.perf_counter() - start, "reason": reason}, block


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if not is_lazy(p))


def _approximated(
    conv: Conv, name: str, method: str, request: Request
) -> tuple[Ranks, Approximation, Format]:
    form = _format(conv, method, name)
    bias = 0 if conv.bias is None else conv.bias.numel()
    ranks = _ranks(form, request, bias)
    after, before = form.count(ranks) + bias, conv.weight.numel() + bias
    if after >= before:
        raise OutOfReachError(
            f"the block of rank {ranks} would have {after} parameters, the layer has {before}"
        )
    found = form.approximation(ranks)
    return ranks, replace(found, parts=form.scaled(found.parts)), form


def _ranks(form: Format, request: Request, bias: int) -> Ranks:
    before = form.weight.numel() + bias
    if request.kind == "energy":
        return form.keeping(request.share, before - bias - 1)
    if request.kind == "params":
        budget = request.share * before
        ranks = along_ray(form.most, form.coupling, form.count, budget - bias)
        if ranks is None:
            least = (1,) * len(form.most)
            raise OutOfReachError(
                f"the block of rank {least} would have {form.count(least) + bias} parameters, "
                f"more than {request.share:g} times the layer's {before}"
            )
        return ranks
    asked = request.ranks if request.kind == "tuple" else request.ranks * len(form.most)
    return coupled(asked, form.most, form.coupling)


def _found(
    form: Format, ranks: Ranks, approximation: Approximation, block: nn.Module
) -> dict[str, object]:
    parts = as_stored(approximation.parts, form.weight.dtype)
    difference = (form.kernels - composed(parts) / form.scale).norm()
    K, R = form.groups * form.K, parts[-1].channels
    return {
        "rank": ranks,
        "error": float(difference) / math.sqrt(form.energy) if form.energy > 0 else 0.0,
        "params_after": sum(p.numel() for p in block.parameters()),
        "R": R,
        "ratio": K / R,
        "degeneracy_als": approximation.degeneracy_als,
        "degeneracy": approximation.degeneracy,
        "degenerate": approximation.degeneracy > DEGENERATE,
    }
