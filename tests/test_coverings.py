"""Greedy coverings: centres are apart, balls hold everything, growth follows the dimension."""

import numpy as np
import pandas as pd
import pytest

from krratio.experiments.coverings import covering_numbers, greedy_cover, growth_exponents


def test_points_on_a_line_are_covered_from_the_first_on():
    points = np.linspace(0, 1, 11)[:, None]
    assert greedy_cover(points, 0.25) == 4  # 0, 0.3, 0.6, 0.9
    assert greedy_cover(points, 2.0) == 1
    assert greedy_cover(points, 0.01) == 11


def test_a_power_law_gives_its_exponent_and_no_spread():
    radii, rows = (0.5, 0.25, 0.125), []
    for repeat in range(3):
        rows += [{"class": "a", "radius": r, "repeat": repeat, "centres": r**-2.0} for r in radii]
    frame = pd.DataFrame(rows).assign(intrinsic=3, covering=4, naive=5)
    (found,) = growth_exponents(frame).to_dict("records")
    assert found["slope"] == pytest.approx(2)
    assert found["high"] - found["low"] == pytest.approx(0, abs=1e-9)


def test_the_circle_is_one_dimensional_and_channels_add_nothing():
    classes = {"circle": ((2, 1), None), "in 3 channels": ((2, 1), 3)}
    numbers = covering_numbers(classes, members=2000, repeats=3, seed=0)
    slopes = growth_exponents(numbers).set_index("class")["slope"]
    assert slopes["circle"] == pytest.approx(1, abs=0.25)
    assert slopes["in 3 channels"] == pytest.approx(1, abs=0.25)
