"""What a sweep would do, without doing it."""

from collections.abc import Iterator

from krratio.pipeline.environment import cores
from krratio.pipeline.layout import Layout
from krratio.pipeline.store import Store
from krratio.pipeline.storing.row import Row
from krratio.pipeline.sweep import SweepOptions, store_path
from krratio.pipeline.sweeping.estimate import Costs
from krratio.pipeline.sweeping.grid import Grid
from krratio.pipeline.sweeping.progress import duration

__all__ = ["listing"]


def listing(grid: Grid, options: SweepOptions, layout: Layout) -> Iterator[str]:
    """Yield a line for each task with its state and cost, and one for all.

    Costs are means of what was recorded for the same parameters, by any code; else for all.
    """
    recorded: list[Row] = []
    path = store_path(grid.name, options.store, layout)
    if path.exists():
        with Store(path) as store:
            recorded = list(store.all_rows())
    known = {row.task.key: row for row in recorded}
    costs = Costs.of(recorded)
    total, unknown, waiting = 0.0, 0, 0
    for task in grid.tasks():
        row = known.get(task.key)
        status = row.status if row else "pending"
        seconds = costs.seconds(task)
        yield f"{status:8}{'?' if seconds is None else f'{seconds:.3g} s':>10}  {task}"
        if status == "pending":
            waiting += 1
            total += seconds or 0.0
            unknown += seconds is None
    jobs = options.jobs or cores()
    cost = (
        f"about {duration(total / jobs)} with {jobs} at a time" if not unknown else "cost unknown"
    )
    yield f"{waiting} of {len(grid)} tasks to run, {cost}"
