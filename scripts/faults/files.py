"""Faults of files: cut off, or with one bit turned."""

from faults import Fault

__all__ = ["FAULTS"]

FAULTS: tuple[Fault, ...] = ()
