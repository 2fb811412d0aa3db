"""The registry says which notebook makes which figures, or says what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest

from krratio.errors import RegistryError
from krratio.pipeline.layout import Layout
from krratio.pipeline.registry import load_registry
from tiny_clone import entry, make_clone, make_notebook


def clone(root: Path, registry: dict[str, Any], notebooks: str = "01_a 02_b") -> Layout:
    return make_clone(root, {stem: make_notebook() for stem in notebooks.split()}, registry)


def test_the_chapters_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    layout = clone(tmp_path, {})
    layout.registry.write_text(
        "02_b:\n  title: B\n  figures: {}\n"
        "01_a:\n  title: A\n  figures: {a-line: Line}\n  profiles: {smoke: {n: 2}}\n"
    )
    second, first = load_registry(layout).chapters
    assert (second.stem, second.title, second.figures, second.profiles) == ("02_b", "B", {}, {})
    assert (first.figures, first.profiles) == ({"a-line": "Line"}, {"smoke": {"n": 2}})


def test_a_chapter_is_selected_by_its_name_or_by_any_of_its_figures(tmp_path: Path) -> None:
    layout = clone(tmp_path, {"01_a": entry("one", "two"), "02_b": entry("three")})
    registry = load_registry(layout)
    assert [c.stem for c in registry.select(["two"])] == ["01_a"]
    assert [c.stem for c in registry.select(["three", "01_a"])] == ["01_a", "02_b"]
    assert registry.select([]) == registry.chapters
    assert registry.chapter_of("three").stem == "02_b"
    with pytest.raises(RegistryError, match="'four' is neither a notebook nor a figure; known"):
        registry.select(["one", "four"])
    with pytest.raises(RegistryError, match="figure '01_a' is not in the registry"):
        registry.chapter_of("01_a")


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        ({"01_a": entry("one"), "02_b": entry("one")}, "'one' names 2 notebooks or figures"),
        ({"01_a": entry("One"), "02_b": entry()}, "'One' is not lower-case-with-dashes"),
        ({"01_a": entry("a--b"), "02_b": entry()}, "'a--b' is not lower-case-with-dashes"),
        ({"01_a": {**entry(), "colour": 1}, "02_b": entry()}, "unknown key 'colour'; allowed"),
        ({"01_a": entry(profiles={"fast": {}}), "02_b": entry()}, "unknown key 'fast'; allowed"),
        ({"01_a": entry(profiles={"default": {}}), "02_b": entry()}, "unknown key 'default'"),
        ({"01_a": entry(profiles={"full": 3}), "02_b": entry()}, "profile full: expected a map"),
        ({"01_a": {"figures": {}}, "02_b": entry()}, "title is None; give it a text"),
        ({"01_a": {"title": "A", "figures": ["x"]}, "02_b": entry()}, "figures: expected a map"),
        ({"01_a": {"title": "A", "figures": {"x": ""}}, "02_b": entry()}, "'x' has no title"),
        ({"01_a": 5, "02_b": entry()}, "'01_a': expected a name with a mapping"),
        ({"01_a": entry()}, r"notebooks/02_b.ipynb is not in figures.yaml"),
        ({"01_a": entry(), "02_b": entry(), "03_c": entry()}, r"names '03_c', but .* is missing"),
        ({}, "expected a mapping from notebooks to entries"),
    ],
)
def test_a_wrong_registry_is_refused_by_name(
    tmp_path: Path, registry: dict[str, Any], message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        load_registry(clone(tmp_path, registry))


def test_a_key_given_twice_is_refused_instead_of_the_last_one_winning(tmp_path: Path) -> None:
    layout = clone(tmp_path, {}, "01_a")
    layout.registry.write_text("01_a:\n  title: A\n  figures: {}\n  title: B\n")
    with pytest.raises(RegistryError, match="'title' is given twice in the mapping at line 2"):
        load_registry(layout)


def test_text_that_is_no_yaml_is_refused_with_the_file_name(tmp_path: Path) -> None:
    layout = clone(tmp_path, {}, "01_a")
    layout.registry.write_text("01_a: [")
    with pytest.raises(RegistryError, match=r"figures\.yaml: "):
        load_registry(layout)


def test_outside_a_clone_the_missing_registry_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="works in a clone of the repository"):
        load_registry(Layout(tmp_path))


@pytest.mark.parametrize("stem", ["../elsewhere", "/etc/passwd", "link"])
def test_a_notebook_outside_of_its_folder_is_refused(tmp_path: Path, stem: str) -> None:
    layout = make_clone(tmp_path / "clone", {"01_a": make_notebook()}, {stem: entry()})
    (tmp_path / "outside.ipynb").write_text("{}")
    (layout.notebooks / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    with pytest.raises(RegistryError, match=f"notebook '{stem}' is .*stays inside"):
        load_registry(layout)
