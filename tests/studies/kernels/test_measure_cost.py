"""Costs of kernels: counts as in the papers, memory as computed by hand, times spread over rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from studies.kernels.cases import DESIGNS, KERNELS, NONE, Case, build, find_design, make_groups
from studies.kernels.measure_cost import MIN_REPEATS, ROUNDS, MeasuredCase, count, measure, peak_of
from tests.known import golden
from utils.base.errors import ConfigError

CPU = torch.device("cpu")
MIB = 2**20


def gate(design: str, k: int, channels: int = 64, side: int = 20) -> Case:
    return Case("module", "module alone", design, k, channels, side)


def taps(design: str, k: int) -> list[int]:
    """Return the weights of each depth-wise convolution for one channel, by the formulas of the papers."""
    d = 2 if k <= 11 else 3
    near, far = 2 * d - 1, (k - d + 1) // d
    known = {
        "LKATrivial": [k * k],
        "LSKATrivial": [k, k],
        "LKA": [near * near, far * far],
        "LSKA": [near, near, far, far],
    }
    return known[design]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("k", KERNELS)
def test_counts_of_a_module_follow_the_formula(design: str, k: int) -> None:
    c, cases = 64, 20 * 20
    weights = c * sum(taps(design, k)) + c * c
    counted = count(gate(design, k, c))

    assert counted["parameters"] == weights + c * len(taps(design, k)) + c
    assert counted["gmacs"] == pytest.approx(weights * cases / 1e9)
    assert counted["gflops"] == pytest.approx(2 * weights * cases / 1e9)
    biases = c * (len(taps(design, k)) + 1) * cases
    assert counted["gmacs_with_biases"] == pytest.approx((weights * cases + biases) / 1e9)


@pytest.mark.parametrize("k", KERNELS)
def test_counts_of_van_tiny_are_those_of_the_authors_code(k: int) -> None:
    known: dict[str, Any] = golden("10_lska")["van"][f"van_tiny/k{k}"]
    counted = count(Case("van", "VAN-Tiny", "LSKA", k, 0, 224))
    assert counted["parameters"] == known["parameters"]
    assert counted["gmacs"] == pytest.approx(known["thop_gmacs_224"], rel=1e-9)


def test_counts_of_van_tiny_are_those_of_the_papers() -> None:
    lka = count(Case("van", "VAN-Tiny", "LKA", 23, 0, 224))
    assert (round(lka["parameters"] / 1e6, 2), round(lka["gmacs_with_biases"], 2)) == (4.11, 0.88)
    lska = count(Case("van", "VAN-Tiny", "LSKA", 23, 0, 224))
    assert (lska["parameters"], round(lska["gmacs"], 3)) == (4_029_000, 0.839)


def test_yolov5_has_one_block_after_sppf() -> None:
    plain = count(Case("yolo", "yolov5n", NONE, 0, 0, 640))
    with_block = count(Case("yolo", "yolov5n", "LKA", 23, 0, 640))
    block = count(gate("LKA", 23, 256, 20))
    assert plain["parameters"] == golden("09_models")["models"]["yolov5n.yaml"]["parameters"]
    for key in ("parameters", "gmacs", "gflops"):
        assert with_block[key] - plain[key] == pytest.approx(block[key])


def test_groups_hold_all_cases() -> None:
    groups = make_groups(("module", "van", "yolo"), list(DESIGNS), (7, 23), (64, 512), (80, 20))
    assert [len(group) for group in groups] == [8] * 4 + [8] + [9] * 2
    assert [group[0].title for group in groups[-3:]] == [
        "VAN-Tiny, 224 x 224",
        "yolov5n, 640 x 640",
        "yolov5s, 640 x 640",
    ]
    assert groups[0][0].title == "module alone, 64 channels, 80 x 80"
    with pytest.raises(ConfigError, match="--kernels 9: LKA does not exist for it .* 7 and 11"):
        make_groups(("van",), ["LKATrivial", "LKA"], (9,), (), ())


def test_designs_are_found_by_their_names_in_the_paper() -> None:
    assert [find_design(text) for text in ("lska", "LKA-trivial", "LSKATrivial")] == [
        "LSKA",
        "LKATrivial",
        "LSKATrivial",
    ]
    with pytest.raises(ValueError, match="SLKA is not one of LKATrivial"):
        find_design("SLKA")


def _two_at_once(x: torch.Tensor) -> None:
    y = x * 2
    z = y + 1
    del y
    z.relu_()


def _one_after_another(x: torch.Tensor) -> None:
    for _ in range(5):
        x * 2


@pytest.mark.parametrize(("work", "tensors"), [(_two_at_once, 2), (_one_after_another, 1)])
def test_peak_memory_is_that_of_simultaneous_tensors(
    work: Callable[[torch.Tensor], None], tensors: int
) -> None:
    x = torch.rand(MIB)  # 4 MiB
    assert peak_of(lambda: work(x), CPU) / MIB == pytest.approx(4 * tensors, abs=0.01)


def test_the_peak_of_a_step_grows_with_the_map() -> None:
    peaks = []
    for side in (40, 80):
        measured = MeasuredCase(gate("LSKA", 7, 64, side), CPU, batch=1)
        measured.warm_up()
        peaks.append(measured.peak)
        maps = 6 * 64 * side**2 * 4  # the input, and the outputs of five convolutions
        assert maps < measured.peak < 3 * maps
        assert all(p.grad is None for p in measured.model.parameters())
    assert 3 < peaks[1] / peaks[0] < 4.2


@pytest.mark.parametrize("budget", [0.0, 0.05])
def test_cases_take_turns(budget: float) -> None:
    cases = [gate(design, 7, 8, 6) for design in ("LKA", "LSKA")]
    results: list[dict[str, Any]] = []
    order = list(measure(cases, CPU, 2, budget, results, {"machine": "m", "command": "c"}))

    assert order == cases * (ROUNDS + 1)
    assert [row["design"] for row in results] == ["LKA", "LSKA"]
    for row in results:
        assert row["repeats"] == MIN_REPEATS if budget == 0 else row["repeats"] > MIN_REPEATS
        assert 0 < row["forward_low_ms"] <= row["forward_ms"] <= row["forward_high_ms"]
        assert 0 < row["step_low_ms"] <= row["step_ms"] <= row["step_high_ms"]


def test_detection_is_timed_with_fused_norms() -> None:
    measured = MeasuredCase(Case("yolo", "yolov5n", "LSKA", 7, 0, 64), CPU, batch=1)
    names = {type(module).__name__ for module in measured.deployed.modules()}
    assert "BatchNorm2d" not in names
    assert any(type(module).__name__ == "BatchNorm2d" for module in measured.model.modules())
    assert measured.model.training and not measured.deployed.training


def test_gates_are_initialized_as_in_the_papers() -> None:
    x = torch.rand(1, 64, 4, 4)
    assert not torch.equal(build(gate("LSKA", 7))(x), x)
