"""The counts of one architecture, and the checks that all formulas share."""

import operator
from dataclasses import dataclass
from typing import SupportsIndex

__all__ = ["Counts", "size", "sizes"]


@dataclass(frozen=True)
class Counts:
    """Counts of one architecture; all are integers, and none depends on the data.

    Attributes
    ----------
    naive
        Parameters, as a parameter count takes them.
    covering
        Exponent of the classical covering lemma of the format: the class has at most
        (c / eps)^covering members at distance eps. An upper bound on what data must pay for, up to
        logarithms; it can exceed ``naive``.
    folded
        Parameters that are left when every channel edge is as wide as what passes it. Also a
        covering exponent: matrices, Tucker tensors and tensor trains are Lipschitz in factors that
        are orthonormal but for one; where terms can cancel (CP, groups, skips) it is the exponent
        of Zhang and Kileel (arXiv 2311.05116), up to logarithms.
    intrinsic
        Dimension of the class by the closed formula, or, where there is none, ``folded`` less the
        rank of the known symmetries. What the law of least squares has; see
        :func:`krratio.intrinsic_dimension` for the exact number of a network.
    ambient
        Dimension of the space that the class lies in.
    format
        ``"cnn"``, ``"tucker"``, ``"cp"``, ``"tt"``, or ``"network"`` where no format applies.
    """

    naive: int
    covering: int
    folded: int
    intrinsic: int
    ambient: int
    format: str

    @property
    def redundancy(self) -> int:
        """Naive less covering, which the paper reads as redundancy; it may be negative."""
        return self.naive - self.covering


def size(name: str, value: SupportsIndex) -> int:
    """Return a positive integer, or refuse it by name."""
    number = operator.index(value)
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name}={value!r}: an integer of at least 1 is needed.")
    return number


def sizes(name: str, values: object) -> tuple[int, ...]:
    """Return a tuple of positive integers, or refuse it by name."""
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"{name}={values!r}: a tuple of integers of at least 1 is needed.")
    return tuple(size(f"{name}[{i}]", value) for i, value in enumerate(values))
