"""Values that no key of a yaml expects."""

from __future__ import annotations

from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 7, 10**7, 10**18, 10**400, -(10**9), 0.5, -0.5, 1e300),
    *(float("inf"), float("nan"), "", "None", "nearest", "nc", "anchors", "nn.ReLU()", "nn.Conv2d(1,1,1)"),
    *("[1, 2]", "(3, 3)", "1e9", "'x'", "__import__('os')", "\u0000", "ü" * 50, [], [[]], [0], [-1], [1, 2]),
    *([3, 3], [1, [2, [3]]], {}, {"k": 3}, {"k": -1}, {"init": "paper"}, {"x": None}, {1: 2}, {None: []}),
)
NAMES: tuple[Any, ...] = (  # of files, folders, shards and URLs
    *("pipe:ls", "/dev/zero", "http://[x.tar", "s3://x/{0..9}.tar", "a-{000..999999999}.tar", "{a,b}" * 30),
    *("x" * 5000, "../" * 500, "*" * 50 + ".tar", "~nosuchuser/x", ["images", None], ["images"] * 1000),
)
