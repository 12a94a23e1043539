"""What can take the place of a large kernel gate: its four designs, and the blocks they are compared with."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from models.attention.controls import (
    CBAM,
    ECA,
    EMA,
    SE,
    CoordAtt,
    Depthwise,
    Gate1x1,
    Residual1x1,
    SimAM,
)
from models.attention.lska import DESIGNS
from utils.base.errors import ConfigError

CONTROLS: dict[str, type[nn.Module]] = {
    block.__name__: block for block in (SE, CBAM, ECA, CoordAtt, SimAM, EMA, Gate1x1, Residual1x1, Depthwise)
}
GATES: dict[str, type[nn.Module]] = {**DESIGNS, **CONTROLS}  # values of `design`


def make_gate(
    design: str,
    dim: int,
    k: int | None = None,
    dilation: int | None = None,
    init: str = "identity",
    r: int | None = None,
) -> Any:
    """Make a block of one of the designs.

    Args:
        design: a name in `GATES`.
        dim: input and output channels.
        k: kernel size; designs without a kernel ignore it.
        dilation: of the far taps of LSKA and LKA; others ignore it.
        init: "identity" or "paper".
        r: reduction of SE, CBAM, CoordAtt and EMA; others ignore it.

    Raises:
        ConfigError: the design is unknown, or does not accept k, dilation, init or r.
    """
    if design not in GATES:
        raise ConfigError(f"attention: design {design!r} is not one of {', '.join(GATES)}")
    accepted = inspect.signature(GATES[design]).parameters
    given = {"k": k, "dilation": dilation, "init": init, "r": r}  # blocks of users may lack any of them
    keywords = {key: value for key, value in given.items() if key in accepted and value is not None}
    return GATES[design](dim, **keywords)
