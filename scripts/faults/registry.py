"""All faults, module by module."""

from faults import Fault, clusters, figures, files, store, sweeps

__all__ = ["FAULTS", "MODULES"]

MODULES = (sweeps, clusters, store, figures, files)
"""In the order of the table; each has ``FAULTS``."""

FAULTS: tuple[Fault, ...] = tuple(fault for module in MODULES for fault in module.FAULTS)
