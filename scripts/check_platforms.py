"""Run nbval on the committed notebooks under other kernels of linear algebra and other threads.

    python scripts/check_platforms.py [--variants NAME ...] [--only CHAPTER ...]
    python scripts/check_platforms.py --report

Each variant sets environment variables that make OpenBLAS or torch take the code of another
processor, or use two threads; the printed numbers must stay those that are committed. What is
finished lies in runs/platforms.csv and is not done again as long as the notebook is the same. With
all done, data/results/platforms.csv and docs/platforms.md are written.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields

from krratio.paths import DATA, NOTEBOOKS, ROOT, RUNS
from krratio.pipeline.records import seal
from krratio.pipeline.runlog import processor
from krratio.writing import write_text

RECORD = DATA / "results" / "platforms.csv"
PAGE = ROOT / "docs" / "platforms.md"
KEPT = RUNS / "platforms.csv"

VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {},
    "OpenBLAS Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "OpenBLAS Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "ATen and MKL plain": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "2 threads": {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
}
"""What each variant sets; unless it says otherwise, one thread."""

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

FINGERPRINT = """
import hashlib, numpy, torch
a = numpy.random.default_rng(0).normal(size=(200, 200))
b = torch.from_numpy(a)
for value in (a @ a, numpy.linalg.svd(a)[1], (b @ b).numpy(), torch.linalg.svdvals(b).numpy()):
    print(hashlib.sha256(value.tobytes()).hexdigest()[:8])
"""
"""Prints the hashes of two results of numpy and two of torch: another code rounds otherwise."""


@dataclass(frozen=True)
class Result:
    """A notebook under a variant: one row of the record."""

    notebook: str
    variant: str
    source: str
    holds: str
    seconds: float


def source(notebook: str) -> str:
    """Return the hash of a committed notebook."""
    return hashlib.sha256((NOTEBOOKS / f"{notebook}.ipynb").read_bytes()).hexdigest()[:16]


def environment(variant: str) -> dict[str, str]:
    """Return the environment of a variant's processes."""
    chosen = {name for setting in VARIANTS.values() for name in setting}
    inherited = {name: value for name, value in os.environ.items() if name not in chosen}
    return {**inherited, **THREADS, **VARIANTS[variant]}


def fingerprint(variant: str) -> list[str]:
    """Return the hashes that show whether the variant computes otherwise at all."""
    command = [sys.executable, "-c", FINGERPRINT]
    return subprocess.run(
        command, env=environment(variant), capture_output=True, text=True, check=True
    ).stdout.split()


def check(notebook: str, variant: str) -> Result:
    """Run one notebook under one variant."""
    nbval = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=600")
    file = f"notebooks/{notebook}.ipynb"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *nbval, file],
        cwd=ROOT,
        env=environment(variant),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-3000:], flush=True)
    seconds = round(time.monotonic() - began, 1)
    return Result(notebook, variant, source(notebook), "no" if done.returncode else "yes", seconds)


def finished() -> dict[tuple[str, str, str], Result]:
    """Return what was done before."""
    if not KEPT.exists():
        return {}
    with KEPT.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(fields(Result))]
    found = [Result(row[0], row[1], row[2], row[3], float(row[4])) for row in rows]
    return {(result.notebook, result.variant, result.source): result for result in found}


def record(results: list[Result]) -> None:
    """Write the record and where it comes from."""
    lines = [",".join(field.name for field in fields(Result))]
    lines += [",".join(map(str, asdict(result).values())) for result in results]
    write_text(RECORD, "\n".join(lines) + "\n")
    facts = {
        "hardware": f"{processor()}, {platform.machine()}",
        "variants": VARIANTS,
        "fingerprints": {variant: fingerprint(variant) for variant in VARIANTS},
        "python": platform.python_version(),
    }
    seal("platforms", facts, [RECORD.name])


def moved(plain: list[str], other: list[str]) -> str:
    """Say which results of the fingerprint have other bits than as it is."""
    names = ("numpy's products", "numpy's SVD", "torch's products", "torch's SVD")
    found = [name for name, a, b in zip(names, plain, other, strict=True) if a != b]
    return f"; other bits in {', '.join(found)}" if found else ""


def page() -> str:
    """Return the page that shows the record."""
    with RECORD.open(encoding="utf-8", newline="") as file:
        rows = {(row["notebook"], row["variant"]): row["holds"] for row in csv.DictReader(file)}
    facts = json.loads(RECORD.with_suffix(".json").read_text(encoding="utf-8"))
    notebooks = sorted({notebook for notebook, _ in rows})
    plain = facts["fingerprints"]["as it is"]
    settings = [
        f"- **{name}**: {', '.join(f'`{k}={v}`' for k, v in chosen.items()) or 'nothing set'}"
        + moved(plain, facts["fingerprints"][name])
        for name, chosen in facts["variants"].items()
    ]
    table = [
        f"| {notebook} | {' | '.join(rows[notebook, name] for name in facts['variants'])} |"
        for notebook in notebooks
    ]
    return "\n".join(
        [
            "# Printed numbers on other processors",
            "",
            "Written by `python scripts/check_platforms.py --report`. Every notebook was run by",
            "nbval against its committed output while environment variables made numpy's OpenBLAS",
            "and torch take the code of other processors, or two threads",
            f"(on {facts['hardware']}).",
            "",
            *settings,
            "",
            f"| notebook | {' | '.join(facts['variants'])} |",
            f"|---|{'---|' * len(facts['variants'])}",
            *table,
            "",
        ]
    )


def main() -> None:
    """Run what is left, record it, write the page."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--only", nargs="+", metavar="CHAPTER", help="notebooks, by their names")
    parser.add_argument("--report", action="store_true", help="write the page from the record")
    options = parser.parse_args()
    if not options.report:
        notebooks = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
        RUNS.mkdir(exist_ok=True)
        done, results = finished(), []
        for variant in VARIANTS:
            for notebook in notebooks:
                result = done.get((notebook, variant, source(notebook)))
                chosen = notebook in (options.only or notebooks) and variant in options.variants
                if result is None and chosen:
                    result = check(notebook, variant)
                    with KEPT.open("a", encoding="utf-8", newline="") as file:
                        csv.writer(file, lineterminator="\n").writerow(asdict(result).values())
                    print(*asdict(result).values(), flush=True)
                if result is not None:
                    results.append(result)
        if len(results) < len(VARIANTS) * len(notebooks):
            print("some combinations are left; the record stays as it is")
            return
        record(results)
    write_text(PAGE, page())


if __name__ == "__main__":
    main()
