"""List every locked package with its licence, and refuse one that is unknown or does not fit.

    python scripts/check_dependencies.py [--write]

The kit is under the MIT licence and does not contain these packages: pip installs them, unmodified.
``--write`` writes docs/dependencies.md.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from krratio.paths import LOCK, ROOT
from krratio.writing import write_text

PAGE = ROOT / "docs" / "dependencies.md"

FAMILIES = {
    "permissive": r"MIT|BSD|Apache|ISC|PSF|Python Software|HPND|Unlicense|Zlib|CC0|CNRI",
    "weak copyleft": r"LGPL|Lesser General Public|MPL|Mozilla Public",
}
"""Licences that allow using an unmodified package from a kit under MIT. Others are looked at."""

REVIEWED = {
    "tqdm": "MPL-2.0 AND MIT",
}
"""Read in the package itself, where its metadata say nothing that can be told apart."""

HEAD = """\
# Dependencies and their licences

Written by `python scripts/check_dependencies.py --write` from the metadata of what
`requirements.lock` installs. The kit is under the [MIT licence](../LICENSE) and contains none of
these packages: pip installs them, unmodified. Permissive licences (MIT, BSD, Apache and the like)
and weak copyleft ones (LGPL, MPL), which bind changes to the package itself, allow that. A test
fails when the lock holds a package whose licence is unknown or of another kind.

**Known vulnerabilities** are asked for by `pip-audit -r requirements.lock --no-deps --disable-pip`
(`pip install pip-audit`, best in an environment of its own). It needs the internet, and it is no
test, because its answer changes without the kit changing: run it before a release, and move what it
names with `make lock`. {audited}

| package | version | licence | kind |
|---|---|---|---|
"""

AUDITED = (
    "It has not been run to the end on this lock: no database of vulnerabilities was reachable."
)
"""What the last such run said, with its date."""


@dataclass(frozen=True)
class Package:
    """One line of the lock with what its metadata say."""

    name: str
    version: str
    licence: str
    kind: str


def packages(lock: Path = LOCK) -> list[Package]:
    """Return all packages of a lock."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return [Package(name, version, *_licence(name)) for name, version in pins]


def _licence(name: str) -> tuple[str, str]:
    try:
        found = REVIEWED.get(name) or licence_in(dict(metadata(name).json))
    except PackageNotFoundError:
        return "not installed", "unknown"
    return found, kind_of(found)


def licence_in(fields: dict[str, object]) -> str:
    """Return the licence that a package's metadata name, in short."""
    expression = fields.get("license_expression")
    if isinstance(expression, str):
        return expression
    classifiers = fields.get("classifier")
    if isinstance(classifiers, list):
        said = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
        said = [name for name in said if name != "OSI Approved"]
        if said:
            return ", ".join(said)
    text = fields.get("license")
    return text.strip().splitlines()[0][:60] if isinstance(text, str) and text.strip() else "none"


def kind_of(licence: str) -> str:
    """Return the family of a licence, ``unknown`` for one that must be looked at."""
    for family in ("weak copyleft", "permissive"):
        if re.search(FAMILIES[family], licence):
            return family
    return "unknown"


def page(found: list[Package]) -> str:
    """Return the page that lists them."""
    lines = [f"| {p.name} | {p.version} | {p.licence} | {p.kind} |\n" for p in found]
    return HEAD.format(audited=AUDITED) + "".join(lines)


def main() -> int:
    """List, or write the page; 1 if a licence does not fit."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/dependencies.md")
    options = parser.parse_args()
    found = packages()
    if options.write:
        PAGE.parent.mkdir(exist_ok=True)
        write_text(PAGE, page(found))
    unknown = [p for p in found if p.kind == "unknown"]
    for package in unknown:
        print(f"{package.name} {package.version}: {package.licence}; read it", file=sys.stderr)
    print(f"{len(found)} packages, {len(unknown)} of unknown licence")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
