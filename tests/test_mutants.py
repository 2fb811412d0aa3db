"""The record of mutants is whole and explained, and the script tells a test that fails."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import mutate_theory
from mutate_theory import EXPLAINED, PAGE, RECORD, Mutant, name_of, page, read


def test_the_page_shows_the_record() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_at_least_nine_in_ten_of_three_hundred_mutants_are_killed() -> None:
    facts = json.loads(RECORD.with_suffix(".json").read_text(encoding="utf-8"))["samples"]
    assert list(facts) == ["looked at", "unseen"]
    for name, sample in facts.items():
        rows = [row for row in read(RECORD) if row["sample"] == name]
        killed = sum(row["outcome"] != "survived" for row in rows)
        assert (sample["mutants"], sample["killed"]) == (len(rows), killed)
    assert facts["looked at"]["mutants"] >= 300
    assert facts["looked at"]["killed"] / facts["looked at"]["mutants"] >= 0.9


def test_every_survivor_is_explained_and_nothing_else() -> None:
    alive = {name_of(row) for row in read(RECORD) if row["outcome"] == "survived"}
    explained = yaml.safe_load(EXPLAINED.read_text(encoding="utf-8"))
    assert set(explained) == alive
    assert all(isinstance(why, str) and len(why) > 10 for why in explained.values())


MODULE = """
def area(width: int, height: int | None = None) -> int:
    return width * (width if height is None else height)
"""
TEST = """
from krratio.theory.area import area

def test_area():
    assert area(3) == 9
    assert area(3, 5) == 15
"""


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit of one module, with a test of it."""
    theory = tmp_path / "src/krratio/theory"
    theory.mkdir(parents=True)
    for package in (theory, theory.parent):
        (package / "__init__.py").touch()
    (theory / "area.py").write_text(MODULE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_area.py").write_text(TEST)
    for name in ("scripts", "data", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(mutate_theory, "ROOT", tmp_path)
    monkeypatch.setattr(mutate_theory, "KEPT", tmp_path / "runs/mutants.csv")
    monkeypatch.setattr(mutate_theory, "TESTS", {"area": ("area",)})
    return tmp_path


CHANGED = {
    "times": ("width * (", "width + (", "killed"),
    "endless": ("return", "while True: pass\n    return", "timeout"),
    "comment": ("return", "pass\n    return", "survived"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="mutants run in forks")
@pytest.mark.parametrize("name", CHANGED)
def test_a_mutant_is_killed_where_a_test_fails_and_only_there(
    name: str, kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, outcome = CHANGED[name]
    monkeypatch.setattr(mutate_theory, "mutated", lambda _: MODULE.replace(old, new))
    monkeypatch.setattr(mutate_theory, "LIMIT", 20.0 if outcome != "timeout" else 3.0)
    mutant = Mutant("src/krratio/theory/area.py", "core/ReplaceBinaryOperator_Mul_Add", 0)
    (result,) = mutate_theory.run_all([mutant], 1)
    assert (result.outcome, result.line) == (outcome, 3)
    assert list(mutate_theory.finished()) == [mutant]  # and not done again:
    monkeypatch.setattr(mutate_theory, "Copy", None)
    assert mutate_theory.known([mutant]) == [result]


@pytest.mark.skipif(sys.platform == "win32", reason="mutants run in forks")
def test_what_is_known_of_a_mutant_ends_with_its_module_and_a_survivor_with_its_tests(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutants = [Mutant("src/krratio/theory/area.py", f"core/{name}", 0) for name in ("a", "b")]
    texts = {"core/a": MODULE + "\n", "core/b": MODULE.replace("*", "+")}
    monkeypatch.setattr(mutate_theory, "mutated", lambda mutant: texts[mutant.operator])
    results = list(mutate_theory.run_all(mutants, 2))
    assert [result.outcome for result in results] == ["survived", "killed"]
    assert mutate_theory.known(mutants) == results
    (kit / "tests/test_area.py").write_text(TEST + "    assert area(2) == 4\n")
    assert mutate_theory.known(mutants) == results[1:]
    (kit / "src/krratio/theory/area.py").write_text(MODULE + "\n")
    assert mutate_theory.known(mutants) == []


def test_mutants_that_are_no_python_or_change_annotations_are_none(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant = Mutant("src/krratio/theory/area.py", "core/any", 0)
    for old, new, is_idle in (
        ("int | None", "int + None", True),
        ("-> int", "-> str", True),
        ("(width: int", "(//, width: int", True),
        ("* (", "+ (", False),
        ("= None", "= 1", False),
    ):
        changed = MODULE.replace(old, new)
        monkeypatch.setattr(mutate_theory, "mutated", lambda _, text=changed: text)
        assert mutate_theory.idle(mutant) == is_idle, new


@pytest.mark.skipif(not find_spec("cosmic_ray"), reason="cosmic-ray is not installed")
def test_the_population_holds_every_module_of_the_theory() -> None:
    files = {mutant.file for mutant in mutate_theory.population()}
    assert "src/krratio/theory/counts/canonical.py" in files
    assert len(files) > 30
