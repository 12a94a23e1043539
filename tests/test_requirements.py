"""The oldest versions that are tested are those which requirements.txt admits."""

from __future__ import annotations

import re

from utils.base.paths import ROOT


def versions(file: str, operator: str) -> dict[str, tuple[int, ...]]:
    """Return the version of each package in a requirements file."""
    found = {}
    for line in (ROOT / file).read_text().splitlines():
        if match := re.match(rf"([\w.-]+){operator}([\d.]+)", line):
            found[match[1]] = tuple(map(int, match[2].split(".")))
    return found


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    bounds, oldest = versions("requirements.txt", ">="), versions("constraints-oldest.txt", "==")
    assert oldest.keys() == bounds.keys()
    for package, bound in bounds.items():
        assert oldest[package][: len(bound)] == bound, package
