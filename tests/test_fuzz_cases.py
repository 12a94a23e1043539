"""Inputs that fuzzing has found, and random changes of valid ones: each is read, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CASES = sorted((Path(__file__).with_name("fuzz") / "cases").glob("*/*"))
TOKENS = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\x7f",
    b"-1",
    b"1e999",
    b"[[",
    b"&a *a",
    b"\n- ",
)
CHANGES = 100  # of each target


def changed(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change some bytes, insert or remove some, or continue with another input."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0:
                content[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                content[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
            case 2:
                del content[at : at + rng.choice((1, 8, 50))]
            case 3:
                token = rng.choice(TOKENS)
                content[at : at + len(token)] = token
            case _:
                content[at:] = other[rng.randrange(len(other)) :]
    return bytes(content)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.parent.name}-{case.name}" for case in CASES])
def test_inputs_that_were_found(case: Path) -> None:
    TARGETS[case.parent.name].check(case.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs(name: str) -> None:
    target, rng = TARGETS[name], random.Random(1)
    seeds = target.seeds()
    for seed in seeds:
        target.check(seed)
    for _ in range(CHANGES):
        target.check(changed(rng, rng.choice(seeds), rng.choice(seeds)))
