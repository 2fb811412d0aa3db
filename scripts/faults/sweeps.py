"""Faults while a sweep runs: what is killed, what its tasks do, when it is told to end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from numpy.random import Generator

from faults import Fault, Inject, Outcome
from faults.clock import going_back
from faults.small_sweep import LIMIT, Found, Sweep, everything_ends

__all__ = ["FAULTS"]

SECONDS = 3.0  # what the small sweep takes, about
KILLS = 4  # in one sweep
STUCK = 60.0  # seconds after which a sweep counts as waiting for something that does not come
PATIENCE = 30.0  # seconds for it to end after Ctrl-C

Processes = list[psutil.Process]


def _workers(driver: psutil.Process) -> Processes:
    """Dask's workers."""
    return [p for p in driver.children() if "spawn_main" in " ".join(p.cmdline())]


def _sandboxes(driver: psutil.Process) -> Processes:
    """The processes in which tasks run."""
    return [
        p
        for w in _workers(driver)
        for p in w.children()
        if "sweeping.child" in " ".join(p.cmdline())
    ]


def killing(victims: Callable[[psutil.Process], Processes]) -> Inject:
    """SIGKILL one of `victims` at random moments, a few times in each sweep."""

    def inject(folder: Path, times: int, generator: Generator) -> Outcome:
        found, killed, number, errors = Found(0, 0, 0), 0, 0, ""
        while killed < times:
            sweep = Sweep(folder / str(number), cases=12)
            number += 1
            with everything_ends(sweep.start()) as process:
                sweep.wait_for(1, process)
                killed += _kill_some(process.pid, victims, min(KILLS, times - killed), generator)
                _, printed = process.communicate(timeout=LIMIT)
            found += sweep.found()
            if process.returncode:
                found += Found(0, 0, 1)
                errors += f"; exit code {process.returncode}: {printed.strip()[-300:]}"
        said = f"each task once in {number} sweeps, which went on by themselves{errors}"
        return Outcome(killed, found.lost, found.doubled, found.wrong, said)

    return inject


def _kill_some(
    driver: int, victims: Callable[[psutil.Process], Processes], most: int, generator: Generator
) -> int:
    killed = 0
    while killed < most and psutil.pid_exists(driver):
        time.sleep(generator.uniform(0.1, SECONDS / 3))
        try:
            alive = victims(psutil.Process(driver))
            if alive:
                alive[generator.integers(len(alive))].kill()
                killed += 1
        except psutil.Error:  # it was gone already
            continue
    return killed


def kill_driver(folder: Path, times: int, generator: Generator) -> Outcome:
    """SIGKILL the process that drives the sweep, again and again; then let it finish."""
    found, killed, number = Found(0, 0, 0), 0, 0
    while killed < times:
        sweep = Sweep(folder / str(number))
        number += 1
        for _ in range(min(KILLS, times - killed)):
            with everything_ends(sweep.start()) as process:
                time.sleep(generator.uniform(0.2, SECONDS))
                if process.poll() is None:
                    process.kill()
                    killed += 1
                    process.communicate(timeout=LIMIT)
                    found += _orphans(sweep)
        code, said = sweep.run()
        found += sweep.found() if code == 0 else Found(0, 0, 1)
    said = f"--resume finished all {number} sweeps; no process was left behind"
    return Outcome(killed, found.lost, found.doubled, found.wrong, said)


def _orphans(sweep: Sweep) -> Found:
    """Count processes of a sweep that outlive its driver by more than five seconds."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        alive = [p for p in psutil.process_iter(["cmdline"]) if _belongs(p, sweep)]
        if not alive:
            return Found(0, 0, 0)
        time.sleep(0.1)
    return Found(0, len(alive), 0)


def _belongs(process: psutil.Process, sweep: Sweep) -> bool:
    try:
        return any(str(sweep.folder) in word for word in process.cmdline()) or (
            "sweeping.child" in " ".join(process.cmdline()) and process.ppid() == 1
        )
    except psutil.Error:
        return False


def telling(*numbers: signal.Signals) -> Inject:
    """Send signals to the whole process group, as a terminal does; then go on with --resume."""

    def inject(folder: Path, times: int, generator: Generator) -> Outcome:
        found, told, slowest = Found(0, 0, 0), 0, 0.0
        for number in range(times):
            sweep = Sweep(folder / str(number))
            with everything_ends(sweep.start()) as process:
                sweep.wait_for(2, process)
                time.sleep(generator.uniform(0, SECONDS / 3))
                before, began = sweep.done(), time.monotonic()
                for one in numbers:
                    os.killpg(process.pid, one)
                    time.sleep(0.05)
                process.communicate(timeout=LIMIT)
                slowest = max(slowest, time.monotonic() - began)
                told += 1
                found += Found(max(before - sweep.done(), 0), 0, int(process.returncode != 130))
            code, _ = sweep.run()
            found += sweep.found() if code == 0 else Found(0, 0, 1)
        found += Found(0, 0, int(slowest > 10))
        said = (
            f"exit code 130 within {slowest:.1f} s, all that had ended kept; --resume did the rest"
        )
        return Outcome(told, found.lost, found.doubled, found.wrong, said)

    return inject


def misbehaving(how: str, limits: str, reason: str) -> Inject:
    """Let the tasks of one case of eight misbehave: they are marked, the others are done."""

    def inject(folder: Path, times: int, _generator: Generator) -> Outcome:
        found, injected = Found(0, 0, 0), 0
        seeds = max(times, 1)
        sweep = Sweep(folder, "bad", 8, seeds, f", how: [{how}]", limits)
        code, _ = sweep.run()
        errors = [row[5] for row in sweep.rows() if row[2]["case"] == 3]
        injected = len(errors)
        found += sweep.found(failing=lambda case: case == 3)
        found += Found(0, 0, sum(reason not in str(error) for error in errors) + (code != 1))
        return Outcome(
            injected, found.lost, found.doubled, found.wrong, f"marked failed: {errors[0]}"
        )

    return inject


def clock_goes_back(folder: Path, times: int, generator: Generator) -> Outcome:
    """Let the wall clock of every process jump back by an hour.

    Dask's own timeouts follow that clock. A sweep that does not end for that reason is interrupted
    as its user would do it, and goes on with --resume.
    """
    environment = going_back(folder / "patch", after=2)
    found, stuck, deaf = Found(0, 0, 0), 0, 0
    for number in range(times):
        sweep = Sweep(folder / str(number), seeds=int(generator.integers(2, 4)))
        with everything_ends(sweep.start(environment=environment)) as process:
            try:
                process.communicate(timeout=STUCK)
            except subprocess.TimeoutExpired:
                stuck += 1
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=PATIENCE)
                except subprocess.TimeoutExpired:
                    deaf += 1
        code, _ = sweep.run()
        found += sweep.found() if code == 0 else Found(0, 0, 1)
    said = (
        f"{times - stuck} sweeps went on; {stuck} waited longer than {STUCK:g} s for Dask, whose "
        f"timeouts follow that clock: Ctrl-C ended {stuck - deaf}, SIGKILL {deaf}; with --resume "
        "all were finished"
    )
    return Outcome(times, found.lost, found.doubled, found.wrong, said)


FAULTS = (
    Fault(
        "kill-worker", "a worker of Dask", "SIGKILL at a random moment", killing(_workers), 2, 60
    ),
    Fault(
        "kill-task-process",
        "the process of a task",
        "SIGKILL at a random moment",
        killing(_sandboxes),
        2,
        24,
    ),
    Fault(
        "kill-driver",
        "`krratio sweep`",
        "SIGKILL at a random moment; then --resume",
        kill_driver,
        2,
        24,
    ),
    Fault("ctrl-c", "`krratio sweep`", "Ctrl-C; then --resume", telling(signal.SIGINT), 1, 6),
    Fault(
        "ctrl-c-twice",
        "`krratio sweep`",
        "Ctrl-C twice within 0.05 s; then --resume",
        telling(signal.SIGINT, signal.SIGINT),
        1,
        6,
    ),
    Fault(
        "terminal-closed",
        "`krratio sweep`",
        "SIGHUP; then --resume",
        telling(signal.SIGHUP),
        1,
        4,
    ),
    Fault(
        "task-raises",
        "a task",
        "raises an exception",
        misbehaving("raises", "{}", "ZeroDivisionError: on purpose"),
        2,
        20,
    ),
    Fault(
        "task-hangs",
        "a task",
        "never ends; limit 1 s",
        misbehaving("hangs", "{seconds: 1}", "longer than 1 s"),
        1,
        8,
    ),
    Fault(
        "task-leaks",
        "a task",
        "takes memory without end; limit 400 MB",
        misbehaving("leaks", "{memory_mb: 400}", "its limit is 400 MB"),
        1,
        8,
    ),
    Fault(
        "task-kills-itself",
        "a task",
        "SIGKILL of its own process, each time",
        misbehaving("kills its process", "{}", "died 3 times: SIGKILL"),
        1,
        8,
    ),
    Fault(
        "task-kills-its-worker",
        "a task",
        "SIGKILL of its worker, each time",
        misbehaving("kills its worker", "{}", "its worker died 3 times"),
        1,
        4,
    ),
    Fault(
        "clock-goes-back-in-a-sweep",
        "the clock",
        "an hour back, two seconds after a process began",
        clock_goes_back,
        1,
        4,
    ),
)
