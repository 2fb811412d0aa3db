"""What counting says: naive parameters, covering exponents and dimensions, by closed formulas.

One function per format, from integers: :func:`cnn`, :func:`tucker`, :func:`cp`, :func:`tt`; and
:func:`count` for a network. Kernel modes always include the channels: ``l = (C, l_1, ..., l_N)``.
"""

from krratio.theory.counts.canonical import cp, cp_dimension, expected_cp_dimension
from krratio.theory.counts.formats import cnn, tt, tucker
from krratio.theory.counts.network import count
from krratio.theory.counts.overlap import distinct_features, overlap_dimension, syzygies
from krratio.theory.counts.ranks import tt_ranks, tucker_ranks
from krratio.theory.counts.values import Counts

__all__ = [
    "Counts",
    "cnn",
    "count",
    "cp",
    "cp_dimension",
    "distinct_features",
    "expected_cp_dimension",
    "overlap_dimension",
    "syzygies",
    "tt",
    "tt_ranks",
    "tucker",
    "tucker_ranks",
]
