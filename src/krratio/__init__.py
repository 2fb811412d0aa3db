"""krratio: one tensor for a compressed CNN, and what the ratio K/R says about it.

Names are loaded when first used, so that the command line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from krratio import plotting
    from krratio.auditing.audit import Audit, audit
    from krratio.auditing.designs.diagram import channel_diagram
    from krratio.experiments import datasets
    from krratio.experiments.draws import Draws
    from krratio.experiments.estimators import Fit, Fits, fit
    from krratio.experiments.estimators import full as fit_full
    from krratio.experiments.statistics import Statistics
    from krratio.experiments.training import Trained, train
    from krratio.networks import blocks
    from krratio.networks.trace import trace
    from krratio.pipeline.store import Store
    from krratio.pipeline.sweep import SweepOptions, sweep
    from krratio.pipeline.sweeping.grid import Grid, Show
    from krratio.pipeline.sweeping.task import Limits
    from krratio.rewriting.decomposing.decompose import DecomposeResult, decompose
    from krratio.rewriting.folding.fold import FoldResult, fold
    from krratio.theory import bounds, counts
    from krratio.theory.bounds import error_bound, sample_size
    from krratio.theory.counts import Counts, count
    from krratio.theory.dimension import Dimension, intrinsic_dimension
    from krratio.theory.from_tensor import from_tensor
    from krratio.theory.tensorize import TensorizedNetwork, tensorize

__all__ = [
    "Audit",
    "Counts",
    "DecomposeResult",
    "Dimension",
    "Draws",
    "Fit",
    "Fits",
    "FoldResult",
    "Grid",
    "Limits",
    "Show",
    "Statistics",
    "Store",
    "SweepOptions",
    "TensorizedNetwork",
    "Trained",
    "audit",
    "blocks",
    "bounds",
    "channel_diagram",
    "count",
    "counts",
    "datasets",
    "decompose",
    "error_bound",
    "fit",
    "fit_full",
    "fold",
    "from_tensor",
    "intrinsic_dimension",
    "plotting",
    "sample_size",
    "sweep",
    "tensorize",
    "trace",
    "train",
]

_HOMES = {
    "Audit": "auditing.audit",
    "Counts": "theory.counts",
    "DecomposeResult": "rewriting.decomposing.decompose",
    "Dimension": "theory.dimension",
    "Draws": "experiments.draws",
    "Fit": "experiments.estimators",
    "Fits": "experiments.fits",
    "FoldResult": "rewriting.folding.fold",
    "Grid": "pipeline.sweeping.grid",
    "Limits": "pipeline.sweeping.task",
    "Show": "pipeline.sweeping.grid",
    "Statistics": "experiments.statistics",
    "Store": "pipeline.store",
    "SweepOptions": "pipeline.sweep",
    "TensorizedNetwork": "theory.tensorize",
    "Trained": "experiments.training",
    "audit": "auditing.audit",
    "channel_diagram": "auditing.designs.diagram",
    "count": "theory.counts",
    "decompose": "rewriting.decomposing.decompose",
    "error_bound": "theory.bounds",
    "fit": "experiments.estimators",
    "fit_full": "experiments.estimators:full",
    "fold": "rewriting.folding.fold",
    "from_tensor": "theory.from_tensor",
    "intrinsic_dimension": "theory.dimension",
    "sample_size": "theory.bounds",
    "sweep": "pipeline.sweep",
    "tensorize": "theory.tensorize",
    "trace": "networks.trace",
    "train": "experiments.training",
}
_MODULES = {
    "blocks": "networks.blocks",
    "bounds": "theory.bounds",
    "counts": "theory.counts",
    "datasets": "experiments.datasets",
    "plotting": "plotting",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(f"krratio.{_MODULES[name]}")
    elif name in _HOMES:
        home, _, other = _HOMES[name].partition(":")
        value = getattr(import_module(f"krratio.{home}"), other or name)
    else:
        raise AttributeError(f"module 'krratio' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
