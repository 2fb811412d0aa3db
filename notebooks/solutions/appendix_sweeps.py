"""Solutions to the exercises of the appendix on sweeps."""

from pathlib import Path
from tempfile import TemporaryDirectory

import krratio as kr
from krratio.pipeline.sweeping.task import Task


def exercise_1() -> None:
    """The order does not matter; 2 and 2.0 are different values: a function can tell them apart."""
    one, other = {"rank": 2, "ratio": 4}, {"ratio": 4, "rank": 2}
    keys = [Task(0, "m:f", "code", parameters, 1).key for parameters in (one, other)]
    assert keys[0] == keys[1]
    assert Task(0, "m:f", "code", {"rank": 2.0, "ratio": 4}, 1).key != keys[0]


def exercise_2() -> None:
    """It is marked failed, with the error and its line; the others are done."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "exercise_trials.py").write_text("def f(x):\n    return {'y': 1 / x}\n")
        grid = kr.Grid("exercise", "exercise_trials:f", {"x": [0, 1, 2]}, folder=folder)
        kr.sweep(grid, kr.SweepOptions(store=folder / "e.sqlite", jobs=1))
        with kr.Store(folder / "e.sqlite") as store:
            rows = list(store.rows())
    assert [row.status for row in rows] == ["failed", "done", "done"]
    assert str(rows[0].error).startswith("ZeroDivisionError: division by zero (exercise_trials.py")
    assert rows[2].rows == ({"y": 0.5},)


def exercise_3() -> None:
    """The driver is busy all the time at N = τ / c."""
    assert round(20 / 0.003) == 6667
