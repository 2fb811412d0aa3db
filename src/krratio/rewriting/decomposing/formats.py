"""Three low-rank formats of a convolution: the ranks they can have, what they cost, their parts."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from krratio.experiments.seeds import torch_stream
from krratio.rewriting.decomposing.canonical import SLACK, Terms, canonical, stabilized
from krratio.rewriting.decomposing.parts import Part
from krratio.rewriting.decomposing.ranks import Ranks, along_ray, cheapest
from krratio.rewriting.decomposing.spectra import left_svd, tails
from krratio.rewriting.decomposing.terms import degeneracy
from krratio.rewriting.decomposing.train import train, unfoldings
from krratio.rewriting.decomposing.tucker import bases, tucker

__all__ = ["FORMATS", "Approximation", "Cp", "Format", "OutOfReachError", "Tt", "Tucker"]


class OutOfReachError(Exception):
    """No block that is smaller than the layer does what was asked for; the message says why."""


@dataclass(frozen=True, eq=False)
class Approximation:
    """The parts of a block, and how much its terms cancel before and after correction (CP only)."""

    parts: tuple[Part, ...]
    degeneracy_als: float = math.nan
    degeneracy: float = math.nan


class Format(ABC):
    """One way to write the kernels of a layer's groups, all with the same ranks.

    Parameters
    ----------
    weight
        (g K, C, *l) as torch keeps it: of each of g groups, K channels out and C in.
    groups
        g.
    name
        Of the layer, from which random starts are derived.
    """

    ranks_of: str  # what the ranks are, for messages

    def __init__(self, weight: Float[Tensor, "gK C *l"], groups: int, name: str) -> None:
        self.weight, self.groups, self.name = weight, groups, name
        self.K, self.C = len(weight) // groups, weight.shape[1]
        self.window = tuple(weight.shape[2:])
        self.modes = tuple(range(len(self.window)))

    @staticmethod
    def obstacle(modes: int) -> str:  # noqa: ARG004 - most formats take any
        """Why a layer with so many spatial modes has no such format; empty if it has."""
        return ""

    @cached_property
    def scale(self) -> float:
        """The power of two next to the largest entry: squares of weights can leave the floats."""
        largest = float(self.weight.abs().max())
        return 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0

    @cached_property
    def kernels(self) -> Float[Tensor, "g K C *l"]:
        """One kernel for each group over ``scale``, float64 on the CPU."""
        whole = self.weight.to("cpu", torch.float64) / self.scale
        return whole.reshape(self.groups, self.K, *self.weight.shape[1:])

    def scaled(self, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        """The parts of a block for the kernels as they are."""
        return (*parts[:-1], replace(parts[-1], weight=parts[-1].weight * self.scale))

    @property
    @abstractmethod
    def most(self) -> Ranks:
        """The largest of each rank, by the shape of the unfoldings."""

    @property
    @abstractmethod
    def coupling(self) -> int:
        """How many times the other either of two ranks can be."""

    @abstractmethod
    def count(self, ranks: Ranks) -> int:
        """Parameters of the block, all groups, without bias."""

    @abstractmethod
    def keeping(self, share: float, largest: int) -> Ranks:
        """The smallest ranks that keep a share of the squared norm.

        Raises
        ------
        OutOfReachError
            None does with at most ``largest`` parameters, where finding out costs many fits.
        """

    @abstractmethod
    def approximation(self, ranks: Ranks) -> Approximation:
        """The kernels at these ranks."""

    @cached_property
    def energy(self) -> float:
        """Squared norm."""
        return float(self.kernels.square().sum())

    @cached_property
    def merged(self) -> Float[Tensor, "g K C l"]:
        """The kernels with one spatial mode."""
        return self.kernels.flatten(3)

    def pointwise(self, name: str, weight: Float[Tensor, "g K C"]) -> Part:
        """A 1×1 convolution."""
        return Part(name, weight.reshape(*weight.shape, *(1 for _ in self.window)), ())


class Tucker(Format):
    """1×1 (C -> R), spatial (R -> S), 1×1 (S -> K)."""

    ranks_of = "two ranks, behind the channels that enter and before those that leave"

    @property
    def most(self) -> Ranks:
        """Both channel modes' own sizes, or those of all others if that is less."""
        l = math.prod(self.window)
        return min(self.C, self.K * l), min(self.K, self.C * l)

    @property
    def coupling(self) -> int:
        """The core's window."""
        return math.prod(self.window)

    def count(self, ranks: Ranks) -> int:
        """C R + R S l + S K in each group."""
        R, S = ranks
        return self.groups * (self.C * R + R * S * math.prod(self.window) + S * self.K)

    @cached_property
    def bases(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The HOSVD, once for all ranks."""
        return bases(self.merged)

    def keeping(self, share: float, largest: int) -> Ranks:  # noqa: ARG002 - known by spectra
        """By the HOSVD's bound; the fewest parameters decide how the budget is split."""
        (_, out), (_, inner) = self.bases
        l = math.prod(self.window)
        left_out = tails(inner, max(self.C, self.K * l)), tails(out, max(self.K, self.C * l))
        return cheapest(left_out, self.most, self.coupling, self.count, (1 - share) * self.energy)

    def approximation(self, ranks: Ranks) -> Approximation:
        """HOSVD, then HOOI."""
        R, S = ranks
        U, core, V = tucker(self.merged, (R, S), self.bases)
        spatial = core.reshape(*core.shape[:3], *self.window)
        reduce, expand = self.pointwise("reduce", V.mT), self.pointwise("expand", U)
        return Approximation((reduce, Part("spatial", spatial, self.modes), expand))


class Tt(Format):
    """One convolution along each spatial mode."""

    ranks_of = "one bond fewer than spatial modes"

    @staticmethod
    def obstacle(modes: int) -> str:
        """One mode is no train."""
        return "" if modes > 1 else "it has one spatial mode: nothing to separate"

    @property
    def most(self) -> Ranks:
        """Of each bond, what stands on its smaller side."""
        sizes = self.window
        return tuple(
            min(self.C * math.prod(sizes[:j]), self.K * math.prod(sizes[j:]))
            for j in range(1, len(sizes))
        )

    @property
    def coupling(self) -> int:
        """The middle mode's size."""
        return self.window[1]

    def count(self, ranks: Ranks) -> int:
        """Sum of r_{j-1} l_j r_j in each group."""
        bonds = self.C, *ranks, self.K
        return self.groups * sum(
            a * l * b for a, l, b in zip(bonds, self.window, bonds[1:], strict=False)
        )

    def keeping(self, share: float, largest: int) -> Ranks:  # noqa: ARG002 - known by spectra
        """By the TT-SVD's bound; the fewest parameters decide how the budget is split."""
        left_out = [
            tails(torch.linalg.svdvals(matrix), max(matrix.shape[1:]))
            for matrix in unfoldings(self.kernels)
        ]
        return cheapest(left_out, self.most, self.coupling, self.count, (1 - share) * self.energy)

    def approximation(self, ranks: Ranks) -> Approximation:
        """TT-SVD."""
        parts = []
        for j, core in enumerate(train(self.kernels, ranks)):
            alone = [size if i == j else 1 for i, size in enumerate(self.window)]
            weight = core.permute(0, 3, 1, 2)
            parts.append(Part(f"along_{j + 1}", weight.reshape(*weight.shape[:3], *alone), (j,)))
        return Approximation(tuple(parts))


class Cp(Format):
    """1×1 (C -> R), depthwise spatial, 1×1 (R -> K)."""

    ranks_of = "one rank"

    def __init__(self, weight: Float[Tensor, "gK C *l"], groups: int, name: str) -> None:
        super().__init__(weight, groups, name)
        self.fits: dict[int, list[Terms]] = {}
        self.allowed = math.inf  # squared error that the correction must not pass

    @property
    def most(self) -> Ranks:
        """The product of the two smaller modes, at which every kernel is met."""
        smaller = sorted([self.K, self.C, math.prod(self.window)])[:2]
        return (math.prod(smaller),)

    @property
    def coupling(self) -> int:
        """There is one rank only."""
        return 1

    def count(self, ranks: Ranks) -> int:
        """R (C + l + K) in each group."""
        return self.groups * ranks[0] * (self.C + math.prod(self.window) + self.K)

    def _fit(self, R: int) -> list[Terms]:
        """Of each group, once."""
        if R not in self.fits:
            self.fits[R] = [
                canonical(kernel, R, partial(self.generator, group, R))
                for group, kernel in enumerate(self.merged)
            ]
        return self.fits[R]

    def _error(self, R: int) -> float:
        """Squared, of all groups."""
        return float(sum((terms.error * terms.scale) ** 2 for terms in self._fit(R)))

    def keeping(self, share: float, largest: int) -> Ranks:
        """The first that does of 1, 2, 3, 4, 6, 8, 12, ... and the largest, by one fit of each.

        No rank below that at which every unfolding keeps the share can do it: there the search
        begins. A fit costs more than in proportion to its rank, so that all up to the one that does
        cost about three times the last, less than a bisection, which would try larger ones.
        """
        budget = (1 - share) * self.energy
        above = along_ray(self.most, 1, self.count, largest)
        upper, lower = above[0] if above else 0, self._least(budget)
        for R in sorted({*_grid(upper), lower, upper}):
            if lower <= R <= upper and self._error(R) <= budget:
                self.allowed = budget
                return (R,)
        raise OutOfReachError(
            f"no smaller block was found to keep the share {share:g} of its energy: that needs a "
            f"rank of at least {lower}, and up to {upper} the block is smaller"
        )

    def _least(self, budget: float) -> int:
        """No smaller rank can leave out so little in all three unfoldings."""
        ranks = [1]
        for mode in (1, 2, 3):
            matrices = self.merged.movedim(mode, 1).flatten(2)
            left_out = tails(left_svd(matrices)[1], max(matrices.shape[1:]))
            ranks.append(int(np.argmax(left_out <= budget)))
        return max(ranks)

    def approximation(self, ranks: Ranks) -> Approximation:
        """Alternating least squares, then the correction."""
        fits = self._fit(ranks[0])
        error = self._error(ranks[0])
        slack = SLACK
        if error > 0:
            slack = max(0.0, min(SLACK, math.sqrt(self.allowed / error) - 1))
        before = [[f * t.scale ** (1 / 3) for f in t.factors] for t in fits]
        after = [stabilized(k, t, slack) for k, t in zip(self.merged, fits, strict=True)]
        U, V, W = (torch.stack(part) for part in zip(*after, strict=True))
        window = W.mT.reshape(self.groups, ranks[0], 1, *self.window)
        parts = (
            self.pointwise("reduce", V.mT),
            Part("spatial", window, self.modes, depthwise=True),
            self.pointwise("expand", U),
        )
        return Approximation(parts, degeneracy(before), degeneracy(after))

    def generator(self, group: int, R: int, start: int) -> Generator:
        """Of one random start, whatever was decomposed before."""
        return torch_stream(0, "decompose", self.name, group, R, start)


def _grid(upper: int) -> list[int]:
    powers = [2**i for i in range(upper.bit_length())]
    return [*powers, *(3 * power for power in powers)]


FORMATS: dict[str, type[Format]] = {"tucker": Tucker, "cp": Cp, "tt": Tt}
