"""requirements.txt pins what pyproject.toml allows: each package that it names, in its range, and nothing else."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with hatchling

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NO_WHEEL = {"3.13": {"plyvel"}}  # packages that a version of Python does without


def ranges() -> list[Requirement]:
    """What pyproject.toml names: to run, in its extras, to build. Extras that name extras name nothing new."""
    project = PROJECT["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    every = map(Requirement, [*project["dependencies"], *extras, *PROJECT["build-system"]["requires"]])
    return [each for each in every if each.name != project["name"]]


def pins(python: str) -> dict[str, str]:
    """The versions that requirements.txt pins for a version of Python, by package."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    versions = {}
    for pin in map(Requirement, filter(None, lines)):
        (exact,) = pin.specifier
        assert exact.operator == "==", f"{pin}: expected an exact version"
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert pin.name not in versions, f"{pin.name} has two pins for Python {python}"
            versions[pin.name] = exact.version
    return versions


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_pins_are_of_what_pyproject_names_and_in_its_ranges(python):
    versions = pins(python)
    assert set(versions) == {each.name for each in ranges()} - NO_WHEEL.get(python, set())
    for each in ranges():
        version = versions.get(each.name)
        assert version is None or each.specifier.contains(version), f"{each.name}=={version}: expected {each.specifier}"


def test_a_package_has_one_range():
    words = [str(each) for each in ranges()]
    assert len({each.name for each in ranges()}) == len(words), words


def test_the_citation_has_the_version():
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
