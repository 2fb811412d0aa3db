"""One fault after the other; what is finished is kept and not injected again."""

import json
import time
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from faults import Fault, Outcome
from krratio.paths import ROOT, SOURCE
from krratio.pipeline.code import hash_of, texts
from krratio.writing import write_text

__all__ = ["COLUMNS", "Row", "program_hash", "run"]


@dataclass(frozen=True)
class Row:
    """A fault and what became of it: one row of the record."""

    fault: str
    target: str
    what: str
    injected: int
    lost: int
    doubled: int
    wrong: int
    seconds: float
    said: str

    @property
    def harmless(self) -> bool:
        """Whether nothing was lost, doubled or wrong."""
        return not (self.lost or self.doubled or self.wrong)

    def line(self) -> str:
        """Say in one line what happened."""
        losses = f"lost {self.lost}, doubled {self.doubled}, wrong {self.wrong}"
        return (
            f"{self.fault}: injected {self.injected}; {losses}; {self.seconds:.0f} s; {self.said}"
        )


COLUMNS = tuple(field.name for field in fields(Row))


def run(fault: Fault, times: int, seed: int, kept: Path) -> Row:
    """Inject a fault `times` times, or return what the file in `kept` says of having done so."""
    path = kept / f"{fault.name}-{times}-{seed}.json"
    if path.exists():
        return Row(**json.loads(path.read_text(encoding="utf-8")))
    generator = np.random.default_rng([seed, zlib.crc32(fault.name.encode())])
    start = time.perf_counter()
    with TemporaryDirectory(prefix=f"{fault.name}-") as folder:
        outcome = fault.inject(Path(folder).resolve(), times, generator)
    row = _row(fault, outcome, time.perf_counter() - start)
    write_text(path, json.dumps(asdict(row), indent=1) + "\n")
    return row


def _row(fault: Fault, outcome: Outcome, seconds: float) -> Row:
    rounded = round(seconds, 1)
    return Row(fault.name, fault.target, fault.what, **asdict(outcome), seconds=rounded)


def program_hash() -> str:
    """Return the SHA-256 of all that decides what a fault does: the package and the faults."""
    scripts = ROOT / "scripts"
    files = [*SOURCE.rglob("*.py"), *scripts.glob("faults/*.py"), scripts / "tiny_clone.py"]
    return hash_of(texts(sorted(files), ROOT))
