"""From the registry to executed notebooks and figures: the one run that writes them."""

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from krratio.errors import ParameterError
from krratio.pipeline import nbfile, runlog
from krratio.pipeline.environment import cores, environment, prepare_fonts
from krratio.pipeline.files import unwritable
from krratio.pipeline.interpreter import interpreter
from krratio.pipeline.layout import CLONE, Layout
from krratio.pipeline.lock import only_one
from krratio.pipeline.outcome import Outcome
from krratio.pipeline.plan import Destination, Job, destination, plan
from krratio.pipeline.pool import FINAL, Task, run_tasks
from krratio.pipeline.progress import Progress
from krratio.pipeline.report import Report, Row
from krratio.pipeline.request import CELL_TIMEOUT, Request
from krratio.pipeline.unit import orphans

__all__ = ["Options", "reproduce"]


@dataclass(frozen=True)
class Options:
    """What to run and where to.

    Attributes
    ----------
    profile : str
        ``default``, ``smoke`` or ``full``.
    only : tuple of str
        Notebooks or figures; all of the registry if empty. A figure comes with its whole notebook.
    jobs : int or None
        Notebooks at a time; by default one per core.
    out : pathlib.Path or None
        Folder for executed notebooks and figures instead of the usual place.
    cell_timeout : float
        Seconds that one cell may take.
    """

    profile: str = "default"
    only: tuple[str, ...] = ()
    jobs: int | None = None
    out: Path | None = None
    cell_timeout: float = CELL_TIMEOUT


def reproduce(options: Options, layout: Layout = CLONE) -> Report:
    """Execute the selected notebooks and take over what they produce, unit by unit.

    A notebook that fails leaves everything of it as it was, and the others go on.

    Returns
    -------
    Report
        One row per figure, and a message per failure.

    Raises
    ------
    RegistryError, ParameterError, NotebookError
        Before anything runs, if the registry, the parameters or the options are wrong.
    OSError
        If the temporary folder cannot be written; nothing else was touched.
    BusyError
        If another run writes to the same place; nothing ran.
    KeyboardInterrupt
        After the running notebooks were ended and the temporary folder removed; units that were
        complete by then stay.
    """
    if options.jobs is not None and options.jobs < 1:
        raise ParameterError(f"--jobs is {options.jobs}; give at least 1")
    if not options.cell_timeout > 0:
        raise ParameterError(f"--cell-timeout is {options.cell_timeout}; give a positive number")
    to = destination(layout, options.profile, options.out)
    jobs = plan(layout, options.profile, options.only)
    with only_one(to.scratch / "lock", f"{to.figures} and {to.notebooks}"):
        return _reproduce(jobs, options, to, layout)


def _reproduce(jobs: list[Job], options: Options, to: Destination, layout: Layout) -> Report:
    temporary = Path(tempfile.mkdtemp(prefix="tmp-", dir=to.scratch)).resolve()
    failed = to.scratch.resolve() / "failed"
    outcomes = [Outcome(job, temporary / job.stem, failed / f"{job.stem}.ipynb") for job in jobs]
    try:
        _run(outcomes, options, to, layout)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    rows = [row for outcome in outcomes for row in outcome.rows]
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    failures += _log(outcomes, layout)
    if to.figures == layout.figures:
        for name in orphans(layout):
            rows.append(Row(name, "-", "unregistered", 0.0, "none"))
            failures.append(f"figures/{name}.* belong to no notebook in figures.yaml; remove them")
    return Report(tuple(rows), tuple(failures))


def _run(outcomes: list[Outcome], options: Options, to: Destination, layout: Layout) -> None:
    prepare_fonts()
    tasks = [_task(outcome, options, layout) for outcome in outcomes]
    at_once = options.jobs or min(cores(), len(outcomes))
    with (
        Progress([len(outcome.job.notebook.cells) for outcome in outcomes]) as progress,
        closing(run_tasks(tasks, at_once)) as events,
    ):
        for number, event in events:
            outcome = outcomes[number]
            if event["event"] == "started":
                outcome.start()
            elif event["event"] == "cell":
                progress.at(number, event["index"])
            elif event["event"] in FINAL:
                outcome.finish(event.get("message"), to, layout)
                shutil.rmtree(outcome.folder, ignore_errors=True)  # room for the next
                progress.end(number, outcome.line())


def _task(outcome: Outcome, options: Options, layout: Layout) -> Task:
    outcome.produced.figures.mkdir(parents=True)
    outcome.rejected.unlink(missing_ok=True)  # of an earlier run
    executable, prefix = interpreter()
    places = (layout.root.resolve(), outcome.folder, Path("~").expanduser())
    request = Request(
        notebook=nbfile.to_text(outcome.job.notebook),
        folder=str(layout.notebooks.resolve()),
        output=str(outcome.produced.notebook),
        rejected=str(outcome.rejected),
        cell_timeout=options.cell_timeout,
        executable=executable,
        prefix=prefix,
        places=[str(place) for place in places],
    )
    fixed = environment(outcome.produced.figures, outcome.folder)
    return Task(request, fixed, outcome.folder / "log.txt")


def _log(outcomes: list[Outcome], layout: Layout) -> list[str]:
    """Append to the run log; return a message if that fails."""
    runs = [
        {
            "notebook": outcome.job.stem,
            "profile": outcome.job.profile,
            "ok": outcome.failure is None,
            "seconds": round(outcome.seconds, 2),
        }
        for outcome in outcomes
    ]
    try:
        runlog.append(layout, runs)
    except OSError as error:
        return [f"the run log: {unwritable(error)}"]
    return []
