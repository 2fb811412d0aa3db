"""The overlap law against brute force: products of polynomials, multiplied out entry by entry."""

import itertools

import numpy as np
import pytest

from krratio.theory.counts import overlap
from multilinear import dimension


def places(l, p, step):
    """0-1 tensor (offsets, positions, inputs): which input an offset of a window reads."""
    sizes = [n + (m - 1) * s for n, m, s in zip(l, p, step, strict=True)]
    offsets, positions = (list(itertools.product(*map(range, s))) for s in (l, p))
    found = np.zeros((len(offsets), len(positions), *sizes), object)
    for i, h in enumerate(offsets):
        for j, b in enumerate(positions):
            found[(i, j, *(x + y * s for x, y, s in zip(h, b, step, strict=True)))] = 1
    return found.reshape(len(offsets), len(positions), -1)


def rank(C, l, K, p, step, T):
    fixed = places(l, p, step)
    shapes = [(C, len(fixed), K), (K, fixed.shape[1], T)]
    return dimension("chk,kbt,hbx->cxt", shapes, constants=[fixed])


FORMATS = [
    # C, l, K, p, step, T
    (1, (5,), 2, (2,), (1,), 1),
    (2, (5,), 2, (3,), (1,), 1),
    (1, (6,), 2, (3,), (2,), 1),
    (1, (7,), 3, (3,), (2,), 1),
    (1, (4,), 3, (3,), (1,), 2),
    (2, (3,), 2, (3,), (1,), 2),
    (1, (2,), 2, (3,), (2,), 1),  # side by side
    (1, (2,), 2, (3,), (3,), 2),  # with gaps between
    (1, (3,), 5, (2,), (3,), 1),  # more channels than places
    (1, (4,), 9, (2,), (1,), 1),  # the functions fill the space of distinct features
    (3, (4,), 9, (5,), (2,), 1),
    (1, (3, 4), 2, (2, 2), (1, 2), 1),
    (2, (4, 3), 2, (2, 1), (1, 2), 1),
    (1, (3, 3), 3, (2, 2), (2, 1), 1),
    (1, (3, 2), 2, (3, 2), (1, 1), 2),
]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_law_is_the_rank_of_the_products(format_):
    C, l, K, p, step, T = format_
    value = overlap.overlap_dimension(C=C, l=l, K=K, p=p, step=step, T=T)
    assert value == rank(C, l, K, p, step, T)


def test_distinct_features_by_hand():
    assert overlap.distinct_features((3,), (4,), (2,)) == 9  # 0 ... 8
    assert overlap.distinct_features((2,), (3,), (5,)) == 6  # 0 1, 5 6, 10 11
    assert overlap.distinct_features((3, 2), (4, 1), (2, 7)) == 9 * 2


@pytest.mark.parametrize(
    ("l", "p", "step", "K", "T", "value"),
    [
        ((5,), (2,), (1,), 2, 1, 4),  # l - (p - 1) step
        ((6,), (3,), (2,), 2, 1, 2),
        ((4,), (3,), (2,), 2, 1, 0),
        ((5, 4), (2, 2), (1, 2), 2, 1, 4 * 2),
        ((5,), (2,), (1,), 2, 2, 0),  # no two polynomials serve both outputs
        ((5,), (2,), (1,), 3, 2, 15 - 12),  # three polynomials of size 5, two equations of size 6
        ((2,), (3,), (2,), 2, 1, 0),  # side by side
        ((2,), (3,), (2,), 4, 1, 2),  # four channels, three positions: one relation an offset
    ],
)
def test_syzygies_by_hand(l, p, step, K, T, value):
    assert overlap.syzygies(l, p, step, K, T) == value
