"""`python -m tests.gpu`: its table, its report and its exit statuses, and a rehearsal on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.__main__ import main
from tests.gpu.checks import Check, Context, SkippedCheck, compare, run_checks
from tests.gpu.report import describe_machine, summary, write_report
from utils.ops.nms import non_max_suppression

CPU = torch.device("cpu")
PARITY = ("forward yolov5n-LSKA", "loss yolov5n-cls-LSKA", "nms")


def _skips(context: Context) -> str:
    context.require_cuda("for a reason")
    return "not reached"


def _fails(context: Context) -> str:
    raise ValueError("two\nlines | of text")


def _exits(context: Context) -> str:
    raise SystemExit(3)


CHECKS = [
    Check("works", lambda context: f"{context.batch} images"),
    Check("is skipped", _skips),
    Check("fails", _fails),
    Check("exits", _exits),
    Check("is wrong", lambda context: str(compare("value", [1.0, 2.5], [1.0, 2.0], 0, 0.1))),
    Check("is the last", lambda context: "reached"),
]


def test_every_check_gives_a_row_and_none_stops_the_others(tmp_path: Path) -> None:
    shown: list[str] = []
    rows = run_checks(CHECKS, Context(CPU, tmp_path), shown.append)

    assert [row.result for row in rows] == ["ok", "skipped", "FAILS", "FAILS", "FAILS", "ok"]
    said = [line.partition(" s  ")[2] for line in shown]
    assert said[:2] == ["ok: 4 images", "skipped: needs CUDA, for a reason"]
    assert said[2].startswith("FAILS: ValueError: two lines | of text (tests/test_gpu.py:")
    assert said[4].startswith("FAILS: value: 1 values differ, by up to 0.5")
    assert said[5] == "ok: reached"
    assert "ValueError" in (tmp_path / "log.txt").read_text()


def test_the_report_names_the_machine_and_holds_all_rows(tmp_path: Path) -> None:
    context = Context(CPU, tmp_path)
    rows = run_checks(CHECKS, context, lambda line: None)
    write_report(tmp_path / "new" / "report.md", describe_machine(context), rows)
    lines = (tmp_path / "new" / "report.md").read_text().splitlines()

    assert f"| torch | {torch.__version__} |" in lines
    assert {"device", "driver", "CUDA"} <= {line.split(" | ")[0].removeprefix("| ") for line in lines}
    for row in rows:
        assert any(line.startswith(f"| {row.name} | {row.result} | ") for line in lines)
    assert all(line.replace("\\|", "").count("|") in (0, 3, 5) for line in lines), "a cell breaks the table"
    assert "2 ok, 3 fail, 1 skipped" in lines[-1] == summary(rows)


@pytest.mark.parametrize(
    ("found", "words"),
    [([1.0], "shape"), ([1.0, float("nan")], "not finite"), ([1.0, 2.2], "1 values differ, by up to 0.2")],
)
def test_differences_are_reported(found: list[float], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        compare("value", found, [1.0, 2.0], 0.01, 0.01)
    assert compare("value", [1.0, 2.02], [1.0, 2.0], 0.01, 0.01) == pytest.approx(0.02)


def test_without_cuda_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)

    assert main(["--out", str(tmp_path / "report.md")]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    assert "can use 0 CUDA devices" in printed.err and "--device cpu" in printed.err
    assert not (tmp_path / "report.md").exists()


def test_the_parity_checks_pass_in_a_rehearsal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    status = main(["--device", "cpu", "--out", str(report), "--only", *PARITY, "waits detect"])
    lines = capsys.readouterr().out.splitlines()

    assert status == 0, lines
    assert lines[0].startswith("CPU (rehearsal), driver none")
    assert lines[1].split() == ["check", "seconds", "result", "and", "numbers"]
    assert [line.partition("  ")[0] for line in lines[2:-1]] == [*PARITY, "waits detect"]
    assert "4 checks" in lines[-1] and "3 ok, 0 fail, 1 skipped" in lines[-1] and str(report) in lines[-1]
    assert report.exists() and not report.with_suffix(".log").exists()


def test_a_difference_from_the_cpu_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    calls: list[Any] = []

    def wrong(decoded: torch.Tensor, **options: Any) -> list[torch.Tensor]:
        calls.append(options)
        return [found + 0.01 * (len(calls) % 2) for found in non_max_suppression(decoded, **options)]

    monkeypatch.setattr("tests.gpu.parity.non_max_suppression", wrong)
    report = tmp_path / "report.md"
    status = main(["--device", "cpu", "--out", str(report), "--only", "nms", "channels_last classify"])
    out = capsys.readouterr().out

    assert status == 1
    assert "FAILS: detections with {}" in out and "1 ok, 1 fail" in out
    assert "AssertionError" in report.with_suffix(".log").read_text()


def test_unknown_names_of_checks_list_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--only", "nothing"]) == 2
    assert "nms" in capsys.readouterr().out.splitlines()
    assert main(["--list"]) == 0


@pytest.mark.slow
def test_everything_that_needs_no_gpu_passes_in_a_rehearsal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--device", "cpu", "--out", str(tmp_path / "report.md")]) == 0, capsys.readouterr().out
    skipped = [line for line in capsys.readouterr().out.splitlines() if "skipped: " in line]
    assert all("needs CUDA" in line or "not installed" in line for line in skipped), skipped


def test_a_reason_to_skip_is_no_failure() -> None:
    with pytest.raises(SkippedCheck, match="needs CUDA"):
        Context(CPU, Path()).require_cuda("to run")
    Context(torch.device("cuda:0"), Path()).require_cuda("to run")
