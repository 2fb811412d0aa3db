"""Faults of the file that holds a sweep's results."""

import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from numpy.random import Generator

from faults import Fault, Inject, Outcome
from faults.small_sweep import LIMIT, Found, Sweep, everything_ends
from krratio.errors import KrratioError
from krratio.pipeline.store import Store
from krratio.pipeline.storing.export import export, restore

__all__ = ["FAULTS"]


def _finished(folder: Path) -> Sweep:
    """A sweep of 200 quick tasks that is done."""
    sweep = Sweep(folder, cases=20, seeds=10, extra=", pause: [0]")
    code, said = sweep.run()
    if code:
        raise RuntimeError(f"the small sweep fails undisturbed: {said}")
    return sweep


def damaging(damage: Callable[[bytearray, Generator], None]) -> Inject:
    """Damage copies of a finished store; every command must name the file or find all in it."""

    def inject(folder: Path, times: int, generator: Generator) -> Outcome:
        sweep = _finished(folder / "whole")
        content = sweep.store.read_bytes()
        wrong = named = 0
        copy = Sweep(folder / "copy", cases=sweep.cases, seeds=sweep.seeds)
        assert copy.grid.exists()
        for _ in range(times):
            hurt = bytearray(content)
            damage(hurt, generator)
            copy.store.write_bytes(bytes(hurt))
            try:
                with Store(copy.store) as store:
                    values = [row.rows for row in store.rows("done")]
                    wrong += len(values) != 200 or copy.found() != Found(0, 0, 0)
            except KrratioError as error:
                named += 1
                wrong += str(copy.store) not in str(error)
        said = (
            f"{named} named by file; {times - named} in bytes that hold nothing, all results read"
        )
        return Outcome(times, 0, 0, wrong, said)

    return inject


def _flip(content: bytearray, generator: Generator) -> None:
    content[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))


def _cut(content: bytearray, generator: Generator) -> None:
    del content[int(generator.integers(1, len(content))) :]


def damaged_export(folder: Path, times: int, generator: Generator) -> Outcome:
    """Flip a bit of an export; reading it back must name the file."""
    sweep = _finished(folder / "whole")
    wrong = 0
    with Store(sweep.store) as store:
        export(store, folder / "whole.csv")
    content = (folder / "whole.csv").read_bytes()
    for number in range(times):
        hurt = bytearray(content)
        _flip(hurt, generator)
        (folder / "whole.csv").write_bytes(bytes(hurt))
        try:
            with Store(folder / f"{number}.sqlite", write=True) as store:
                restore(folder / "whole.csv", store)
            wrong += 1
        except KrratioError as error:
            wrong += "whole.csv" not in str(error)
    return Outcome(times, 0, 0, wrong, "refused: another SHA-256 than recorded")


def no_store(folder: Path, times: int, _generator: Generator) -> Outcome:
    """Give a text, a foreign database, and a store of a newer version to every command."""
    sweep = _finished(folder / "whole")
    newer, foreign, text = (folder / f"{name}.sqlite" for name in ("newer", "foreign", "text"))
    shutil.copy(sweep.store, newer)
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 7")
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE a (b)")
    text.write_text("these are my notes\n" * 200)
    wrong = injected = 0
    for path in (newer, foreign, text) * times:
        before = path.read_bytes()
        for command in (
            ("status",),
            ("export",),
            ("sweep", str(sweep.grid), "--resume", "--store"),
        ):
            out = ("--out", str(folder / "out.csv")) if command == ("export",) else ()
            code, said = sweep.command(*command, str(path), *out)
            injected += 1
            told = f"krratio: {path}" in said and "Traceback" not in said
            wrong += code != 2 or not told or path.read_bytes() != before
    said = "refused with exit code 2, naming file and both versions; the file is as it was"
    return Outcome(injected, 0, 0, wrong, said)


def two_at_once(folder: Path, times: int, _generator: Generator) -> Outcome:
    """Start a second sweep on the store of a running one: it is refused, or waits if told to."""
    found = Found(0, 0, 0)
    for number in range(times):
        sweep = Sweep(folder / str(number))
        with everything_ends(sweep.start()) as first:
            sweep.wait_for(2, first)
            code, said = sweep.run()
            told = f"{sweep.store} is in use by process {first.pid}" in said
            found += Found(0, 0, int(code == 0 or not told))
            code, _ = sweep.run("--wait", str(LIMIT))
            found += Found(0, 0, int(code != 0))
            first.communicate(timeout=LIMIT)
            found += Found(0, 0, int(first.returncode != 0))
        found += sweep.found()
    said = "the second was refused, naming the process; with --wait it waited"
    return Outcome(2 * times, found.lost, found.doubled, found.wrong, said)


def disk_full(folder: Path, times: int, generator: Generator) -> Outcome:
    """Let the store reach the largest size that a file may have; then go on with room."""
    found, injected = Found(0, 0, 0), 0
    for number in range(times):
        sweep = Sweep(folder / str(number), cases=40, seeds=25, extra=", pause: [0.002]")
        size = int(generator.integers(400_000, 600_000))
        limited = (sys.executable, "-c", LIMITED, str(size))
        code, said = sweep.run(prefix=limited)
        told = "no room left to write" in said and "Traceback" not in said
        injected += code == 1  # with little written at a time it may just fit
        found += Found(0, 0, int(code != 0 and not told))
        code, _ = sweep.run()
        found += sweep.found() if code == 0 else Found(0, 0, 1)
    said = "exit code 1, naming the file; what was stored stayed, --resume did the rest"
    return Outcome(injected, found.lost, found.doubled, found.wrong, said)


# What measures the tests' coverage writes a file too, which must not be what has no room.
LIMITED = """
import os, resource, sys
for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
    del os.environ[name]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def small_disk(folder: Path, times: int, _generator: Generator) -> Outcome:
    """Fill a file system of one megabyte with the store; then make room."""
    mounted = folder / "small"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        return Outcome(0, 0, 0, 0, "not injected: this user may not mount a file system")
    found = Found(0, 0, 0)
    try:
        for number in range(times):
            sweep = Sweep(mounted / str(number), cases=40, seeds=25, extra=", pause: [0]")
            assert sweep.grid.exists()
            (mounted / "filler").write_bytes(bytes(400_000))
            code, said = sweep.run()
            told = "no room left to write" in said and "Traceback" not in said
            found += Found(0, 0, int(code != 1 or not told))
            (mounted / "filler").unlink()
            larger = ["mount", "-o", "remount,size=20m", str(mounted)]
            subprocess.run(larger, check=True)
            code, _ = sweep.run()
            found += sweep.found() if code == 0 else Found(0, 0, 1)
            shutil.rmtree(sweep.folder)
            subprocess.run(["mount", "-o", "remount,size=1m", str(mounted)], check=True)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    said = "exit code 1, naming the file; with room, --resume did the rest"
    return Outcome(times, found.lost, found.doubled, found.wrong, said)


def read_only(_folder: Path, times: int, _generator: Generator) -> Outcome:
    """Run a sweep on a store that its user may not write."""
    # The superuser may write everything: become somebody else.
    user = os.geteuid() or pwd.getpwnam("nobody").pw_uid
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="read-only-") as place:
        sweep = _finished(Path(place) / "sweep")
        for path in (Path(place), sweep.folder):
            path.chmod(0o555)
        sweep.store.chmod(0o444)
        before = sweep.store.read_bytes()
        for _ in range(times):
            command = [sys.executable, "-c", READING, str(sweep.store), str(user)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wrong += done.stdout.strip() != "200 OSError" or sweep.store.read_bytes() != before
        for path in (sweep.folder, Path(place)):
            path.chmod(0o755)
    return Outcome(times, 0, 0, wrong, "read as before; writing is refused, naming the file")


READING = """
import os, sys
from pathlib import Path
from krratio.pipeline.store import Store
path = Path(sys.argv[1])
os.setuid(int(sys.argv[2]))
with Store(path) as store:
    print(len(list(store.rows("done"))), end=" ")
try:
    Store(path, write=True)
    print("written")
except OSError as error:
    print("OSError" if str(path.parent) in str(error) else error)
"""


def checkpoint_damaged(folder: Path, times: int, generator: Generator) -> Outcome:
    """Kill a sweep of long tasks, damage their checkpoints, go on."""
    found, injected = Found(0, 0, 0), 0
    for number in range(times):
        sweep = Sweep(folder / str(number), "counting", cases=2, seeds=2)
        assert sweep.grid.exists()
        (sweep.folder / "small_trials.py").write_text(COUNTING)
        with everything_ends(sweep.start()) as process:
            until = time.monotonic() + LIMIT
            saved: list[Path] = []
            while not saved and time.monotonic() < until:
                saved = list(sweep.folder.glob("*.checkpoints/*.pt"))
                time.sleep(0.05)
            process.kill()
            process.communicate(timeout=LIMIT)
        for path in sweep.folder.glob("*.checkpoints/*.pt"):
            content = bytearray(path.read_bytes())
            _flip(content, generator) if number % 2 else _cut(content, generator)
            path.write_bytes(bytes(content))
            injected += 1
        code, _ = sweep.run()
        found += sweep.found() if code == 0 else Found(0, 0, 1)
    said = "the task began again, with the same result"
    return Outcome(injected, found.lost, found.doubled, found.wrong, said)


COUNTING = """
import time
import numpy as np

def counting(case, seed, checkpoint):
    step = checkpoint.load() or 0
    while step < 10:
        time.sleep(0.1)
        step += 1
        checkpoint.save(step)
    return {"value": float(np.random.default_rng([case, seed]).standard_normal())}
"""

FAULTS = (
    Fault("store-bit-flipped", "a store", "one bit flipped", damaging(_flip), 20, 500),
    Fault("store-truncated", "a store", "cut at a random byte", damaging(_cut), 20, 200),
    Fault(
        "no-store",
        "a store",
        "a newer version, another program's database, a text in its place",
        no_store,
        1,
        3,
    ),
    Fault("export-bit-flipped", "an export", "one bit flipped", damaged_export, 10, 100),
    Fault("two-sweeps-at-once", "a store", "a second sweep on it", two_at_once, 1, 6),
    Fault("disk-full", "a store", "its file may not grow any more", disk_full, 1, 8),
    Fault("small-disk", "a store", "on a full file system", small_disk, 1, 4),
    Fault("store-read-only", "a store", "its user may not write it", read_only, 1, 5),
    Fault(
        "checkpoint-damaged",
        "the checkpoint of a task",
        "driver killed, then a bit flipped or the end cut off",
        checkpoint_damaged,
        1,
        6,
    ),
)
