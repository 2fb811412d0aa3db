"""Inject every fault and say what was lost, doubled or wrong: nothing, or this exits with 1.

    python scripts/inject_faults.py [--thorough] [--only NAME ...] [--seed N] [--record]

Processes are killed, disks filled, files damaged and clocks turned back, all of it in temporary
folders. A fault that is finished lies in runs/faults/ and is not injected again as long as neither
the package nor the faults change. ``--record`` writes data/results/faults.csv with its provenance,
and docs/faults.md from it; ``--report`` writes the page alone.
"""

import argparse
import os
import platform
import sys
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from faults import Fault
from faults.registry import FAULTS
from faults.report import page, read, to_csv
from faults.running import Row, program_hash, run
from krratio.paths import DATA, ROOT, RUNS
from krratio.pipeline.records import seal
from krratio.writing import write_text

RECORD = DATA / "results" / "faults.csv"
PAGE = ROOT / "docs" / "faults.md"


def inject(faults: Iterable[Fault], options: argparse.Namespace) -> tuple[list[Row], bool]:
    """Inject `faults`, print a row for each, and say whether all went as it must."""
    kept = RUNS / "faults" / program_hash()[:12]
    kept.mkdir(parents=True, exist_ok=True)
    rows, good = [], True
    for fault in faults:
        times = fault.thorough if options.thorough else fault.quick
        try:
            rows.append(run(fault, times, options.seed, kept))
        except Exception:  # the others are injected all the same
            print(f"{fault.name}: the harness failed\n{traceback.format_exc()}", flush=True)
            good = False
            continue
        print(rows[-1].line(), flush=True)
        good &= rows[-1].harmless
    return rows, good


def record(rows: list[Row], options: argparse.Namespace) -> None:
    """Write the record of all faults, and the page."""
    write_text(RECORD, to_csv(rows))
    facts = {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{platform.machine()} CPU, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "thorough": options.thorough,
        "seed": options.seed,
        "seconds": round(sum(row.seconds for row in rows)),
        "program": program_hash(),
    }
    seal("faults", facts, [RECORD.name])
    report(RECORD, PAGE)


def report(source: Path, to: Path) -> None:
    """Write the page that shows a record."""
    to.parent.mkdir(exist_ok=True)
    write_text(to, page(read(source)))


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--thorough", action="store_true", help="many times each, up to an hour")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[fault.name for fault in FAULTS]
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--record", action="store_true", help="write the record and the page")
    parser.add_argument("--report", action="store_true", help="write the page from the record")
    options = parser.parse_args()
    if options.record and options.only:
        parser.error("--record is of all faults; leave --only away")
    return options


def main() -> int:
    """Inject, record or report."""
    options = _options()
    if options.report:
        report(RECORD, PAGE)
        return 0
    rows, good = inject([f for f in FAULTS if f.name in (options.only or (f.name,))], options)
    if good and options.record:
        record(rows, options)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
