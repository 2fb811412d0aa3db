"""Rules of SECURITY.md, held against every line of code in the repository."""

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from check_dependencies import PAGE, kind_of, licence_in, packages, page
from krratio.paths import ROOT
from krratio.pipeline.sweeping.cluster import connect

Rule = Callable[[ast.Call, str], bool]
"""Says whether a call breaks it; it is given the call and its dotted name."""


def last(name: str) -> str:
    return name.rpartition(".")[2]


def keyword(call: ast.Call, name: str) -> object:
    for given in call.keywords:
        if given.arg == name and isinstance(given.value, ast.Constant):
            return given.value.value
    return None


RULES: dict[str, Rule] = {
    "no pickle": lambda _, name: (
        name.partition(".")[0] in ("pickle", "dill", "marshal", "shelve", "joblib", "cloudpickle")
    ),
    "torch.load reads weights only": lambda call, name: (
        name == "torch.load" and keyword(call, "weights_only") is not True
    ),
    "numpy.load takes no objects": lambda call, name: (
        last(name) == "load" and bool(keyword(call, "allow_pickle"))
    ),
    "nothing is evaluated": lambda _, name: name in ("eval", "exec", "builtins.eval"),
    "no shell": lambda call, name: (
        bool(keyword(call, "shell"))
        or name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
    ),
    "YAML without tags": lambda call, name: (
        name in ("yaml.unsafe_load", "yaml.full_load")
        or (
            name in ("yaml.load", "yaml.load_all")
            and not (call.keywords and ast.unparse(call.keywords[0].value) in SAFE_LOADERS)
        )
    ),
    "no race for temporary names": lambda _, name: name == "tempfile.mktemp",
}
SAFE_LOADERS = ("_UniqueKeys", "yaml.SafeLoader")

BREACHES = {
    "no pickle": "import pickle\npickle.load(file)",
    "torch.load reads weights only": "torch.load(file)",
    "numpy.load takes no objects": "np.load(file, allow_pickle=True)",
    "nothing is evaluated": "eval(text)",
    "no shell": "subprocess.run(text, shell=True)",
    "YAML without tags": "yaml.load(text, Loader=yaml.Loader)",
    "no race for temporary names": "tempfile.mktemp()",
}

EXEMPT = {
    # The README's own example, which the test compiles from the committed file.
    ("tests/test_readme.py", "nothing is evaluated"),
}


def calls(source: str) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def breaches(source: str) -> set[str]:
    return {
        rule for call, name in calls(source) for rule, broken in RULES.items() if broken(call, name)
    }


def sources() -> Iterator[tuple[str, str]]:
    for folder in ("src", "scripts", "benchmarks", "tests", "notebooks/solutions"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in (c for c in cells if c["cell_type"] == "code"):
            yield path.relative_to(ROOT).as_posix(), "".join(cell["source"])


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_catches_what_it_is_for(rule: str) -> None:
    assert breaches(BREACHES[rule]) == {rule}


def test_no_code_breaks_a_rule() -> None:
    found = {
        (place, rule)
        for place, source in sources()
        if place != "tests/test_security.py"
        for rule in breaches(source)
    }
    assert found == EXEMPT


def test_addresses_that_are_downloaded_from_are_https() -> None:
    for place, source in sources():
        for node in ast.walk(ast.parse(source)) if place != "tests/test_security.py" else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_ours = node.value.startswith(("http://127.0.0.1", "http://www.w3.org"))
                plain = node.value.startswith("http://") and node.value != "http://"
                assert is_ours or not plain, f"{place}: {node.value}"


def test_every_download_has_a_checksum() -> None:
    """There is one place that downloads, and it is given the checksum."""
    downloading = [
        (place, ast.unparse(call))
        for place, source in sources()
        if place.startswith(("src/", "scripts/"))
        for call, name in calls(source)
        if last(name) in ("retrieve", "urlopen", "urlretrieve")
    ]
    assert [place for place, _ in downloading] == ["src/krratio/experiments/download.py"]
    assert "known_hash" in downloading[0][1]


def test_the_cluster_of_a_sweep_listens_on_this_machine_alone() -> None:
    with connect(None, 2):
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [
            link.laddr.ip
            for process in family
            for link in process.net_connections()
            if link.status == psutil.CONN_LISTEN
        ]
    assert len(listening) >= 3  # the scheduler, two workers
    assert set(listening) == {"127.0.0.1"}


def test_every_file_that_the_page_names_exists() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert Path(ROOT / "docs/dependencies.md").exists()
    assert "docs/dependencies.md" in page
    assert "tests/test_security.py" in page


def test_every_locked_package_has_a_known_licence_that_fits() -> None:
    assert [package for package in packages() if package.kind == "unknown"] == []
    assert kind_of("GPL-3.0-only") == kind_of("none") == "unknown"
    assert licence_in({"classifier": ["License :: OSI Approved :: MIT License"]}) == "MIT License"
    assert licence_in({"license_expression": "MIT", "license": "other"}) == "MIT"
    assert licence_in({}) == "none"


def test_the_page_of_dependencies_is_what_the_script_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(packages())
