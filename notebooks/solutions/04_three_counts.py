"""Solutions to the exercises of chapter 04; each function asserts what it claims."""

from torch import nn

import krratio as kr


def exercise_1():
    """Naive 4 (8 + 9 + 16) + 16·36 = 708; covering 4³ + 4·17 + 4·36 = 276; intrinsic 4·51 = 204."""
    depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
    ends = nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(4, 16, 1, bias=False)
    head = nn.Flatten(), nn.Linear(16 * 36, 1, bias=False)
    counts = kr.count(nn.Sequential(ends[0], depthwise, ends[1], *head), (8, 8, 8))
    assert counts.format == "cp"
    assert counts.naive == 4 * (8 + 9 + 16) + 16 * 36 == 708
    assert counts.covering == 4**3 + 4 * (8 + 9) + 4 * 36 == 276
    assert counts.intrinsic == 4 * (8 + 9 + 36 - 2) == 204


def exercise_2():
    """At most R_1 R_2 = 4, so R = 5 is R = 4: 2·2·4 + 2 (2·3) + 4 (9 - 4) = 48."""
    counts = [kr.counts.tucker(l=(5, 5), R_j=(2, 2), R=R, K=5, P=9) for R in (4, 5)]
    assert counts[0].intrinsic == counts[1].intrinsic == 16 + 12 + 20 == 48
    assert counts[1].naive > counts[0].naive


def exercise_3():
    """(R³ + P) / (R + P) = 252 / 42 = 6: equal at K/R = 6, below from there on."""

    def redundancy(ratio):
        return kr.counts.cp(l=(9, 9, 9), R=6, K=6 * ratio, P=36).redundancy

    assert (6**3 + 36) / (6 + 36) == 6
    assert redundancy(5) < redundancy(6) == 0 < redundancy(7)
