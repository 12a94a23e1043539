"""The start-up benchmark reads the output of `-X importtime`."""

from __future__ import annotations

import sys

import pytest

from utils.base.paths import ROOT

LINES = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |   utils.base
import time:      5000 |       5000 |     numpy
import time:     90000 |      95000 |   torch
import time:        20 |         20 |     torch.nn
import time:       300 |        320 |   models
import time:       700 |        700 |     utils.plots
import time:      4000 |       4000 |       PIL
import time:     30000 |      34000 |     matplotlib
import time:        40 |      34740 |   utils.val
a line of the script
"""


def test_imports_of_large_packages_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    from startup import import_seconds

    own, matplotlib = import_seconds(LINES.splitlines())

    assert own == pytest.approx((100 + 300 + 700 + 40) / 1e6)
    assert matplotlib == pytest.approx((4000 + 30000) / 1e6)
