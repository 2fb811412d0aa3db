"""Change single spots of theory/ at random and see whether the tests notice.

    pip install cosmic-ray==8.7.0       # in an environment beside the kit's, or with --target
    python scripts/mutate_theory.py [--mutants 320] [--unseen 100] [--jobs 1] [--seed 1]
    python scripts/mutate_theory.py --report

Cosmic-ray lists every mutant of the package ``krratio.theory``: one operator, number, comparison,
keyword … replaced. A simple random sample of them is drawn, without those that are no Python or
change an annotation only; each is made in a copy of the kit and run against the tests of its
module, the fastest first, until one fails. What is finished lies in runs/mutants.csv and is not
done again as long as the module is the same and, of a survivor, its tests too. Tests are written
where survivors of the sample show gaps; a second sample that nobody has looked at says what the
tests notice elsewhere. With all done,
data/results/mutants.csv and docs/mutants.md are written; ``--report`` writes the page alone.
Survivors are explained in mutants_explained.yaml.
"""

import argparse
import ast
import compileall
import csv
import difflib
import hashlib
import importlib
import io
import itertools
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import yaml

from krratio.paths import DATA, ROOT, RUNS

TOOL = "cosmic-ray"
EXPLAINED = ROOT / "scripts" / "mutants_explained.yaml"
RECORD = DATA / "results" / "mutants.csv"
PAGE = ROOT / "docs" / "mutants.md"
KEPT = RUNS / "mutants.csv"

TESTS: dict[str, Sequence[str]] = {
    "bounds": ("bounds",),
    "counts": ("overlap", "counts"),
    "modular": ("dimension", "overlap", "exact_dimension"),
    "dimension": ("dimension", "exact_dimension"),
    "spectrum": ("dimension", "exact_dimension"),
    "fold": ("fold",),
    "formats": ("fold", "from_tensor", "tensorize"),
    "from_tensor": ("from_tensor",),
    "own": ("from_tensor", "tensorize"),
    "adjoint": ("dimension", "trace", "tensorize"),
    "patches": ("tensorize", "image_regression"),
    "path": ("tensorize", "from_tensor"),
    "position": ("tensorize",),
    "tensorize": ("tensorize",),
}
"""Module or package of theory/ -> its test files, the fastest first."""

HEAVY = "numpy scipy torch tensorly flint hypothesis pandas pytest jaxtyping beartype".split()
"""Imported once; each mutant runs in a fork."""

LIMIT = 200.0  # seconds of a mutant's tests; beyond, it hangs and is noticed


@dataclass(frozen=True)
class Mutant:
    """One spot changed: the `occurrence`-th place of `file` where `operator` applies."""

    file: str
    operator: str
    occurrence: int


@dataclass(frozen=True)
class Result:
    """What became of a mutant: one row of the record."""

    file: str
    operator: str
    occurrence: int
    line: int
    change: str
    outcome: str
    tests: str
    module: str
    tested_by: str
    seconds: float

    @property
    def mutant(self) -> Mutant:
        """Which it is."""
        return Mutant(self.file, self.operator, self.occurrence)

    @property
    def holds(self) -> bool:
        """Whether it would be the same today: the module is, and a survivor's tests are."""
        tests = tests_of(self.file)
        same = self.module == hash_of_files([ROOT / self.file]) and self.tests == " ".join(tests)
        return same and (self.outcome != "survived" or self.tested_by == hash_of_tests(tests))


def population() -> list[Mutant]:
    """Every mutant of theory/, in a fixed order; operators that need arguments make none."""
    plugins, trees = (importlib.import_module(f"cosmic_ray.{name}") for name in ("plugins", "ast"))
    names = [name for name in sorted(plugins.operator_names()) if "/Variable" not in name]
    operators = [(name, plugins.get_operator(name)()) for name in names]
    found = []
    for path in sorted((ROOT / "src/krratio/theory").rglob("*.py")):
        nodes = list(trees.ast_nodes(trees.get_ast_from_path(path)))
        for name, operator in operators:
            count = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            file = path.relative_to(ROOT).as_posix()
            found += [Mutant(file, name, occurrence) for occurrence in range(count)]
    return found


def mutated(mutant: Mutant) -> str:
    """Return the changed source of the mutant's file."""
    mutating, plugins = (
        importlib.import_module(f"cosmic_ray.{name}") for name in ("mutating", "plugins")
    )
    operator = plugins.get_operator(mutant.operator)()
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    changed: str | None = mutating.mutate_code(text, operator, mutant.occurrence)
    assert changed is not None
    return changed


def changes(mutant: Mutant, text: str) -> tuple[int, str]:
    """Return the first changed line's number, and what became of it."""
    old = (ROOT / mutant.file).read_text(encoding="utf-8").splitlines()
    new = text.splitlines()
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            before, after = (" ".join(" ".join(part).split()) for part in (old[a:b], new[c:d]))
            return a + 1, f"{before} → {after}"
    return 0, "nothing"


def tests_of(file: str) -> Sequence[str]:
    """Return the test files of a module of theory/."""
    part = Path(file).relative_to("src/krratio/theory").parts[0].removesuffix(".py")
    return TESTS.get(part, ("tensorize",))


def hash_of_files(paths: Iterable[Path]) -> str:
    """Return a hash of what files hold."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def hash_of_tests(names: Sequence[str]) -> str:
    """Return a hash of test files and what all of these share."""
    shared = sorted(path for path in (ROOT / "tests").glob("*.py") if path.name[:5] != "test_")
    return hash_of_files([*(ROOT / f"tests/test_{name}.py" for name in names), *shared])


class Bare(ast.NodeTransformer):
    """Takes the annotations out of a module."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Return the argument without its annotation."""
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Return the function without what it says to return."""
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Return the assignment without its annotation."""
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def idle(mutant: Mutant) -> bool:
    """Whether a mutant is no Python, or changes an annotation and nothing else."""
    both = (ROOT / mutant.file).read_text(encoding="utf-8"), mutated(mutant)
    try:
        old, new = (ast.dump(Bare().visit(ast.parse(text))) for text in both)
    except SyntaxError:
        return True
    return old == new


def drawn(everything: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw mutants at random, each as likely as another, but no idle one."""
    order = random.Random(seed).sample(everything, len(everything))
    return list(itertools.islice((one for one in order if not idle(one)), count))


class Copy:
    """A copy of the kit whose package is changed, one file at a time."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder / "src", quiet=2)
        for name in (
            "tests",
            "scripts",
            "data",
            "notebooks",
            "requirements.lock",
            "pyproject.toml",
        ):
            (folder / name).symlink_to(ROOT / name)

    def run(self, mutant: Mutant) -> Result:
        """Run the tests of a mutant."""
        text = mutated(mutant)
        line, change = changes(mutant, text)
        path = self.root / mutant.file
        cache = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
        whole = path.read_bytes()
        began = time.monotonic()
        try:
            cache.unlink(missing_ok=True)
            path.write_text(text, encoding="utf-8")
            outcome = self.verdict(tests_of(mutant.file))
        finally:
            path.write_bytes(whole)
        tests, seconds = tests_of(mutant.file), round(time.monotonic() - began, 1)
        hashes = hash_of_files([path]), hash_of_tests(tests)
        where = mutant.file, mutant.operator, mutant.occurrence
        return Result(*where, line, change, outcome, " ".join(tests), *hashes, seconds)

    def verdict(self, names: Sequence[str]) -> str:
        """Return killed, survived or timeout."""
        child = os.fork()
        if child == 0:
            self._test(names)
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "timeout"

    def _test(self, names: Sequence[str]) -> None:
        """In a fork: run pytest on the copy, and end."""
        code = 70
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nowhere, descriptor)
            os.chdir(self.root)
            for name in [n for n in sys.modules if n.partition(".")[0] == "krratio"]:
                del sys.modules[name]
            sys.path[:] = [str(self.root / "src"), str(self.root / "tests"), *sys.path]
            sys.dont_write_bytecode = True
            files = [f"tests/test_{name}.py" for name in names]
            early = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", early]
            pytest: Any = importlib.import_module("pytest")
            code = int(pytest.main([*options, *files]))
        finally:
            os._exit(code)


def finished() -> dict[Mutant, Result]:
    """What was done before; a line that was being written when it ended is passed over."""
    found = {}
    if KEPT.exists():
        with KEPT.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if len(row) != len(fields(Result)):
                    continue
                values: list[Any] = [*row[:2], int(row[2]), int(row[3]), *row[4:9], float(row[9])]
                if (result := Result(*values)).holds:
                    found[result.mutant] = result
    return found


def known(mutants: Sequence[Mutant]) -> list[Result]:
    """Return what was done before of `mutants`."""
    done = finished()
    return [done[mutant] for mutant in mutants if mutant in done]


def run_all(mutants: Sequence[Mutant], jobs: int) -> Iterator[Result]:
    """Yield the results of `mutants`, each kept as soon as it is there."""
    KEPT.parent.mkdir(exist_ok=True)
    done, lock = finished(), Lock()
    yield from known(mutants)
    left = [mutant for mutant in mutants if mutant not in done]
    if not left:
        return
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for job in range(jobs):
            copies.put(Copy(Path(folder) / str(job)))
        check(copies)

        def one(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                result = copy.run(mutant)
            finally:
                copies.put(copy)
            with lock, KEPT.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow(asdict(result).values())
            return result

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(one, left)


def check(copies: "SimpleQueue[Copy]") -> None:
    """Stop unless all tests pass on the unchanged code."""
    copy = copies.get()
    for names in sorted(set(map(tuple, TESTS.values()))):
        if copy.verdict(names) != "survived":
            raise SystemExit(f"the tests {', '.join(names)} do not pass on the unchanged code")
    copies.put(copy)


def main() -> None:
    """Run what is left of the sample, record it, write the page."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=320, help="of the sample")
    parser.add_argument("--unseen", type=int, default=100, help="of the second sample")
    parser.add_argument("--jobs", type=int, default=1, help="at a time, a core each")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--report", action="store_true", help="write the page from the record")
    options = parser.parse_args()
    if not options.report:
        for name in HEAVY:
            importlib.import_module(name)
        everything = population()
        sample = drawn(everything, options.mutants + options.unseen, options.seed)
        results = []
        for result in run_all(sample, options.jobs):
            results.append(result)
            print(
                len(results),
                result.outcome,
                f"{result.seconds:.0f} s",
                result.file,
                result.change[:90],
                flush=True,
            )
        order = {mutant: place for place, mutant in enumerate(sample)}
        results.sort(key=lambda result: order[result.mutant])
        samples = {
            "looked at": results[: options.mutants],
            "unseen": results[options.mutants :],
        }
        record(samples, len(everything), options.seed)
    report()


def record(samples: Mapping[str, Sequence[Result]], everything: int, seed: int) -> None:
    """Write the record and where it comes from."""
    from importlib.metadata import version

    from krratio.pipeline.records import seal
    from krratio.writing import write_text

    lines = [["sample", *(field.name for field in fields(Result))]]
    for name, results in samples.items():
        rows = sorted(results, key=lambda r: (r.file, r.line, r.operator, r.occurrence))
        lines += [[name, *asdict(row).values()] for row in rows]
    with io.StringIO(newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
        write_text(RECORD, file.getvalue())
    facts = {
        "samples": {name: summary(results) for name, results in samples.items()},
        "tool": f"{TOOL} {version(TOOL)}",
        "population": everything,
        "seed": seed,
        "python": platform.python_version(),
    }
    seal("mutants", facts, [RECORD.name])


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Return how many of a sample were killed, with the interval of the share."""
    killed = sum(result.outcome != "survived" for result in results)
    low, high = interval(killed, len(results))
    return {
        "mutants": len(results),
        "killed": killed,
        "by time": sum(result.outcome == "timeout" for result in results),
        "interval": [round(low, 4), round(high, 4)],
    }


def interval(killed: int, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    low, high = binomtest(killed, count).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def read(path: Path) -> list[dict[str, str]]:
    """Read a record."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report() -> None:
    """Write the page."""
    from krratio.writing import write_text

    write_text(PAGE, page())


def page() -> str:
    """Return the page that shows the record."""
    rows = read(RECORD)
    facts = json.loads(RECORD.with_suffix(".json").read_text(encoding="utf-8"))
    explained = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8")) or {}
    alive = [row for row in rows if row["outcome"] == "survived"]
    lines = [
        "# Mutants of theory/",
        "",
        "Written by `python scripts/mutate_theory.py --report` from "
        "[data/results/mutants.csv](../data/results/mutants.csv).",
        "",
        f"{facts['tool']} makes {facts['population']:,} mutants of `krratio.theory`, each by one "
        "change of the source. Two simple random samples of those that are Python and change more "
        "than an annotation were run, each mutant against the tests of its module. Where survivors "
        "of the first showed that a test was missing, it was written, and they were run again; the "
        "second was run after that and nothing was changed for it, so that its share estimates "
        "what the tests notice in general.",
        "",
        "| sample | mutants | killed | share, 95 % Wilson interval | killed by the time limit |",
        "|---|---:|---:|---|---:|",
        *(_line(name, sample) for name, sample in facts["samples"].items()),
        "",
        f"The {len(alive)} survivors, each read:",
        "",
        "| place | change | why no test notices |",
        "|---|---|---|",
    ]
    for row in alive:
        why = explained.get(name_of(row), "**not explained**")
        place = f"{row['file'].removeprefix('src/krratio/theory/')}, line {row['line']}"
        change = row["change"].replace("|", "\\|").replace("`", "'")
        lines.append(f"| {place} | `{change}` | {why} |")
    return "\n".join(lines) + "\n"


def _line(name: str, sample: Mapping[str, Any]) -> str:
    share = sample["killed"] / sample["mutants"]
    low, high = sample["interval"]
    return (
        f"| {name} | {sample['mutants']} | {sample['killed']} | **{share:.1%}**, {low:.1%} to "
        f"{high:.1%} | {sample['by time']} |"
    )


def name_of(row: dict[str, str]) -> str:
    """Return the key of a survivor's explanation."""
    file = row["file"].removeprefix("src/krratio/theory/")
    return f"{file} {row['operator'].removeprefix('core/')} {row['occurrence']}"


if __name__ == "__main__":
    main()
