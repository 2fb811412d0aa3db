"""A grid is every combination of its values, each task with a key that says what it is."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import krratio as kr
from krratio.errors import GridError
from krratio.pipeline.sweeping.function import code_of, find
from krratio.pipeline.sweeping.gridfile import load_grid
from krratio.pipeline.sweeping.task import Task

MODULE = "def measure(rank, ratio=1, seed=0):\n    return {'value': rank * ratio + seed}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grid_trials.py").write_text(MODULE)
    return tmp_path


def test_tasks_are_all_combinations_and_the_last_name_runs_fastest(folder: Path) -> None:
    grid = kr.Grid(
        "a-grid",
        "grid_trials:measure",
        {"ratio": [1, 2]},
        cases=[{"rank": 3}, {"rank": 4}],
        seeds=[7, 8],
        folder=folder,
    )
    found = [(t.number, t.parameters["rank"], t.parameters["ratio"], t.seed) for t in grid.tasks()]
    wanted = itertools.product([3, 4], [1, 2], [7, 8])
    assert found == [(number, *values) for number, values in enumerate(wanted)]
    assert len(grid) == len(found) == 8
    assert grid.names == ("rank", "ratio", "seed")


def test_values_are_made_plain(folder: Path) -> None:
    grid = kr.Grid("plain", "grid_trials:measure", {"rank": [np.int64(2), (1, 2)]}, folder=folder)
    values = [task.parameters["rank"] for task in grid.tasks()]
    assert values == [2, [1, 2]]
    assert type(values[0]) is int


def test_a_key_is_pinned_so_that_stores_stay_readable() -> None:
    task = Task(5, "a:b", "c0de", {"rank": 2, "ratio": 0.5}, 3)
    assert task.key == "b7a1aa1f62d26aab25793e31e6c6eae012046ca8"
    assert Task(9, "a:b", "c0de", {"ratio": 0.5, "rank": 2}, 3).key == task.key


@pytest.mark.parametrize(
    "other",
    [
        Task(5, "a:c", "c0de", {"rank": 2}, 3),
        Task(5, "a:b", "c0df", {"rank": 2}, 3),
        Task(5, "a:b", "c0de", {"rank": 2.0}, 3),
        Task(5, "a:b", "c0de", {"rank": 2, "more": None}, 3),
        Task(5, "a:b", "c0de", {"rank": 2}, 4),
        Task(5, "a:b", "c0de", {"rank": 2}, None),
    ],
)
def test_anything_that_can_change_a_result_changes_the_key(other: Task) -> None:
    assert other.key != Task(5, "a:b", "c0de", {"rank": 2}, 3).key


BAD = {
    "name": ({"name": "A B"}, "name is 'A B'; give lower-case-with-dashes"),
    "function": ({"function": "os.system"}, "function is 'os.system'; give module:name"),
    "parameters": ({"parameters": [1]}, r"parameters is \[1\]; give a mapping"),
    "no list": ({"parameters": {"rank": 3}}, "parameters, 'rank' is 3; give a list"),
    "empty list": ({"parameters": {"rank": []}}, r"parameters, 'rank' is \[\]; give a list"),
    "twice": ({"parameters": {"rank": [1, 1]}}, "'rank' is .*; give each value once"),
    "not plain": (
        {"parameters": {"rank": [object()]}},
        "'rank' is <object.*give a number",
    ),
    "not finite": ({"parameters": {"rank": [float("nan")]}}, "'rank' is nan; give a finite number"),
    "no name": ({"parameters": {"a b": [1]}}, "a parameter is 'a b'; give the name of an argument"),
    "seed twice": ({"parameters": {"seed": [1]}, "seeds": [1]}, "is 'seed'; give each name once"),
    "cases": ({"cases": {"rank": 1}}, "cases is .*; give a list of mappings"),
    "uneven cases": ({"cases": [{"a": 1}, {"b": 1}]}, "cases is {'b': 1}; give a list of mappings"),
    "same cases": ({"cases": [{"a": 1}, {"a": 1}]}, "cases is .*; give each case once"),
    "odd key": ({"cases": [{"a": {1: 2}}]}, "the key 1 is not text"),
    "seeds": ({"seeds": [1, -1]}, r"seeds is \[1, -1\]; give how many"),
    "same seeds": ({"seeds": [1, 1]}, r"seeds is \[1, 1\]"),
    "seconds": ({"limits": kr.Limits(seconds=0)}, "limits, 'seconds' is 0; give a positive"),
    "memory": ({"limits": kr.Limits(memory_mb=True)}, "limits, 'memory_mb' is True"),
    "best": ({"show": kr.Show("a", best="most")}, "show, 'best' is 'most'; give max or min"),
    "value": ({"show": kr.Show(3)}, "show, 'value' is 3; give a name"),
    "by": ({"show": kr.Show("a", ("depth",))}, "show, 'by' is 'depth'; give parameters, of rank"),
    "size": (
        {"parameters": {"rank": list(range(4000)), "b": list(range(4000))}},
        "it has 16,000,000 tasks; at most 10,000,000",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_malformed_field_is_refused_by_name_value_and_rule(changes, message) -> None:
    good = {"name": "good", "function": "m:f", "parameters": {"rank": [1]}}
    with pytest.raises(GridError, match=message):
        kr.Grid(**{**good, **changes})


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        ("no_such_module:f", {}, "importing 'no_such_module' raised ModuleNotFoundError"),
        ("grid_trials:nothing", {}, "'grid_trials' has no callable 'nothing'"),
        ("grid_trials:measure", {}, "missing a required argument: 'rank'"),
        ("grid_trials:measure", {"rank": [1], "depth": [1]}, "unexpected keyword argument 'depth'"),
        ("grid_trials:measure", {"rank": [1], "checkpoint": [1]}, "is filled in by the sweep"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused(
    folder: Path, function: str, parameters: dict, message: str
) -> None:
    with pytest.raises(GridError, match=message):
        list(kr.Grid("bad", function, parameters, folder=folder).tasks())


def test_the_code_of_a_function_is_the_kit_and_all_files_beside_it(folder: Path) -> None:
    before = code_of("grid_trials:measure", folder)
    (folder / "helper.py").write_text("x = 1\n")
    after = code_of("grid_trials:measure", folder)
    (folder / "notes.txt").write_text("no code")
    assert before != after == code_of("grid_trials:measure", folder)
    assert code_of("krratio.theory.counts:count") != before


def test_the_code_of_a_package_is_all_of_it(tmp_path: Path) -> None:
    inner = tmp_path / "grid_package" / "inner"
    inner.mkdir(parents=True)
    for path in (inner.parent / "__init__.py", inner / "__init__.py"):
        path.write_text("")
    (inner / "work.py").write_text("def f():\n    return {}\n")
    before = code_of("grid_package.inner.work:f", tmp_path)
    (inner / "other.py").write_text("y = 2\n")
    assert code_of("grid_package.inner.work:f", tmp_path) != before


def test_a_module_of_the_same_name_in_another_folder_is_another_one(tmp_path: Path) -> None:
    for name in ("one", "one/two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same_name.py").write_text(f"def f():\n    return '{name}'\n")
    assert find("same_name:f", tmp_path / "one")() == "one"
    assert find("same_name:f", tmp_path / "one" / "two")() == "one/two"
    assert find("same_name:f", tmp_path / "one")() == "one"


# Files.

YAML = """
function: grid_trials:measure
parameters: {rank: [1, 2]}
cases: [{ratio: 2}]
seeds: 3
limits: {seconds: 5}
show: {value: value, by: [rank], best: min}
"""


def test_a_grid_is_read_from_yaml(folder: Path) -> None:
    path = folder / "A_Good_Grid.yaml"
    path.write_text(YAML)
    grid = load_grid(path)
    assert (grid.name, len(grid), grid.folder) == ("a-good-grid", 6, folder.resolve())
    assert grid.limits == kr.Limits(seconds=5)
    assert grid.show == kr.Show("value", ("rank",), "min")
    assert [task.seed for task in grid.tasks()] == [0, 1, 2] * 2


def test_a_grid_is_made_by_python(folder: Path) -> None:
    path = folder / "made.py"
    path.write_text(
        "import krratio as kr\nGRID = kr.Grid('made', 'grid_trials:measure', {'rank': [1]})\n"
    )
    assert [t.parameters for t in load_grid(path).tasks()] == [{"rank": 1}]


BAD_FILES = {
    "a.txt": ("x", "give a grid as a .yaml or a .py file"),
    "absent.yaml": (None, "there is no such file"),
    "list.yaml": ("[1]", "give a mapping of name, function"),
    "key.yaml": ("function: a:b\nparams: {}", "unknown key 'params'; allowed are name, function"),
    "none.yaml": ("name: a", "function is missing; give module:name"),
    "seeds.yaml": ("function: a:b\nseeds: -1", "seeds is -1; give 0 to 1,000,000, or a list"),
    "limit.yaml": ("function: a:b\nlimits: {hours: 1}", "limits: unknown key 'hours'"),
    "show.yaml": ("function: a:b\nshow: {by: [a]}", "give a value, and by as a list"),
    "shown.yaml": ("function: a:b\nshow: [1]", r"show is \[1\]; give a mapping"),
    "tag.yaml": ("function: !!python/name:os.system", r"line 1 has a tag \(tag:yaml.org,2002:pyt"),
    "int.yaml": ('a: !!int ""', r"line 1 has a tag \(tag:yaml.org,2002:int\); write plain values"),
    "set.yaml": ("a: !!set {b}", "line 1 has a tag"),
    "hex.yaml": ("1: a\n0x1: b", "'a key' is given twice in the mapping at line 1"),
    "date.yaml": ("a: 2026-99-99", "date.yaml: month must be in 1..12"),
    "alias.yaml": ("a: &x [1]\nb: *x", r"line 2 has an alias \(\*name\); write it out"),
    "deep.yaml": ("a: " + "[" * 30 + "]" * 30, "lies more than 20 levels deep"),
    "twice.yaml": (
        "function: a:b\nfunction: a:c",
        "'function' is given twice in the mapping at line 1",
    ),
    "raises.py": ("1 / 0", "running it raised ZeroDivisionError"),
    "nothing.py": ("x = 1", "GRID is None; set it to a krratio.Grid"),
    "wrong.py": (
        "import krratio as kr\nGRID = kr.Grid('A', 'a:b')",
        "name is 'A'; give lower-case-with-dashes",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(GridError, match=message):
        load_grid(tmp_path / name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * 200_001)
    with pytest.raises(GridError, match="has more than 200,000 bytes"):
        load_grid(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GridError, match=r"bytes\.yaml: "):
        load_grid(path)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
KEYS = st.sampled_from(["name", "function", "parameters", "cases", "seeds", "limits", "show", "x"])


@given(content=st.dictionaries(KEYS, VALUES, max_size=6) | VALUES)
def test_any_structure_is_a_grid_or_a_grid_error(tmp_path_factory, content) -> None:
    import yaml

    path = tmp_path_factory.mktemp("grids") / "g.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    try:
        found = load_grid(path)
    except GridError as error:
        found = str(error)
    assert isinstance(found, kr.Grid) or "g.yaml" in found


@given(content=st.binary(max_size=60))
def test_any_bytes_are_a_grid_or_a_grid_error(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("grids") / "g.yaml"
    path.write_bytes(content)
    with pytest.raises(GridError, match=r"g\.yaml"):
        load_grid(path)
