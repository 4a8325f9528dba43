"""Each floor in pyproject.toml is a release that `make test-floor` runs."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def lowest(lines: list[str], operator: str) -> dict[str, Version]:
    """The version that follows an operator in each requirement, by the package's name."""
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(requirement.name): Version(specifier.version)
        for requirement in requirements
        for specifier in requirement.specifier
        if specifier.operator == operator
    }


def test_every_floor_is_pinned_by_the_floor_environment():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    floors = lowest([line for group in groups for line in group], ">=")
    pins = (ROOT / "constraints-floor.txt").read_text().splitlines()
    tested = lowest([line for line in pins if line and not line.startswith("#")], "==")
    assert len(floors) > 30
    assert floors == {name: tested.get(name) for name in floors}
