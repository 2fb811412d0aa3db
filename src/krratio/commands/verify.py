"""``krratio verify``: compute a random sample of a sweep again and compare."""

import argparse
import sys
from pathlib import Path
from random import SystemRandom

from krratio.commands.codes import FAILED, OK
from krratio.commands.stores import add_store, store_at
from krratio.errors import GridError, ParameterError
from krratio.pipeline.layout import Layout

__all__ = ["add"]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    command = commands.add_parser(
        "verify",
        help="compute a random sample of a sweep again and compare",
        description="Compute a random sample of a sweep's finished tasks again, by the code as it "
        "is now, and compare.",
    )
    add_store(command)
    command.add_argument("--sample", type=int, default=10, metavar="N", help="tasks (%(default)s)")
    command.add_argument("--seed", type=int, help="of the sample; a new one each time by default")
    command.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="T",
        help="relative difference up to which numbers are equal (0: every bit)",
    )
    command.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where the module of the function lies, if not where the grid was",
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace, layout: Layout) -> int:
    from krratio.pipeline.store import Store
    from krratio.pipeline.storing.verify import verify

    if options.sample < 1:
        raise ParameterError(f"--sample is {options.sample}; give at least 1")
    if not 0 <= options.tolerance < 1:
        raise ParameterError(f"--tolerance is {options.tolerance}; give 0 to 1")
    seed = SystemRandom().randrange(10**6) if options.seed is None else options.seed
    with Store(store_at(options.store, layout), write=True) as store:
        folder = options.folder or store.facts().get("folder")
        place = Path(folder) if folder else None
        try:
            found = verify(
                store, place, sample=options.sample, seed=seed, tolerance=options.tolerance
            )
        except GridError as error:
            raise GridError(f"{error}; --folder says where its module lies") from None
    code = "the same code" if found.same_code else "other code than the store's"
    print(
        f"{found.compared} tasks computed again by {code}: {len(found.differing)} differ, by "
        f"{found.largest_difference:.2g} at most (--seed {seed})"
    )
    for line in found.differing:
        print(f"krratio: {line}", file=sys.stderr)
    return FAILED if found.differing else OK
