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


def keyword(call: ast.Call, name: str, default: object = None) -> object:
    """Return what a literal argument is; "unknown" for one that is no literal."""
    for given in call.keywords:
        if given.arg == name:
            return given.value.value if isinstance(given.value, ast.Constant) else "unknown"
    return default


RULES: dict[str, Rule] = {
    "no pickle": lambda _, name: (
        name.partition(".")[0] in ("pickle", "dill", "marshal", "shelve", "joblib", "cloudpickle")
        or last(name) == "read_pickle"
    ),
    "torch.load reads weights only": lambda call, name: (
        name == "torch.load" and keyword(call, "weights_only") is not True
    ),
    "numpy.load takes no objects": lambda call, name: (
        last(name) == "load"
        and (bool(keyword(call, "allow_pickle")) or (name == "numpy.load" and len(call.args) > 2))
    ),
    "nothing is evaluated": lambda _, name: (
        name in ("eval", "exec", "builtins.eval", "builtins.exec")
    ),
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
    "import pickle\npickle.load(file)": "no pickle",
    "from pickle import load\nload(file)": "no pickle",
    "import pickle as p\np.loads(text)": "no pickle",
    "import pandas as pd\npd.read_pickle(file)": "no pickle",
    "torch.load(file)": "torch.load reads weights only",
    "from torch import load\nload(file)": "torch.load reads weights only",
    "import torch as t\nt.load(file, weights_only=False)": "torch.load reads weights only",
    "import numpy as np\nnp.load(file, allow_pickle=True)": "numpy.load takes no objects",
    "import numpy as np\nnp.load(file, allow_pickle=flag)": "numpy.load takes no objects",
    "import numpy as np\nnp.load(file, None, True)": "numpy.load takes no objects",
    "eval(text)": "nothing is evaluated",
    "import builtins\nbuiltins.exec(text)": "nothing is evaluated",
    "subprocess.run(text, shell=True)": "no shell",
    "subprocess.run(text, shell=flag)": "no shell",
    "from os import system\nsystem(text)": "no shell",
    "yaml.load(text, Loader=yaml.Loader)": "YAML without tags",
    "from yaml import unsafe_load\nunsafe_load(text)": "YAML without tags",
    "from yaml import load, Loader\nload(text, Loader)": "YAML without tags",
    "tempfile.mktemp()": "no race for temporary names",
    "from tempfile import mktemp\nmktemp()": "no race for temporary names",
}

EXEMPT = {
    # The README's own example, which the test compiles from the committed file.
    ("tests/test_readme.py", "nothing is evaluated"),
}


def calls(source: str) -> Iterator[tuple[ast.Call, str]]:
    """Yield every call with its name in full, whatever it was imported as."""
    tree = ast.parse(source)
    known = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            yield node, known.get(first, first) + dot + rest


def imported(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name is in full."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


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


@pytest.mark.parametrize("source", BREACHES)
def test_a_rule_catches_what_it_is_for(source: str) -> None:
    assert breaches(source) == {BREACHES[source]}


def test_every_rule_is_shown_to_catch_something() -> None:
    assert set(BREACHES.values()) == set(RULES)


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
