"""Start-up time of the scripts: `--help`, and detect.py on one image against bare imports.

    python benchmarks/startup.py
    python benchmarks/startup.py --weights yolov5n.pt --source image.jpg

Times of whole processes. A row in seconds is a ratio to one second.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import ROOT, ResultTable, alternate, parser, ratio, slower, timed

from utils.base.paths import relative_to_cwd

SHARED = ROOT.parent / "shared"
SCRIPTS = ("train", "val", "detect", "export", "compare", "graft", "visualize")
BARE, ALL = "import torch, cv2", "import torch, torchvision, cv2"


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument(
        "--weights", default=relative_to_cwd(SHARED / "weights" / "yolov5n.pt"), help="checkpoint path"
    )
    p.add_argument("--source", default=relative_to_cwd(SHARED / "data" / "bus.jpg"), help="image path")
    opt = p.parse_args()
    for flag in ("weights", "source"):
        if not Path(getattr(opt, flag)).is_file():
            p.error(f"--{flag} {getattr(opt, flag)}: no such file")
    table = ResultTable("Start-up", opt.csv)
    for script in SCRIPTS:
        seconds = [timed(lambda s=script: python(str(ROOT / f"{s}.py"), "--help")) for _ in range(opt.rounds)]
        table.add(ratio(f"{script}.py --help, seconds", "<= 0.3", seconds, [1.0] * opt.rounds))
    with tempfile.TemporaryDirectory() as folder:
        one_image(table, opt.rounds, opt.weights, opt.source, folder)


def one_image(table: ResultTable, rounds: int, weights: str, source: str, folder: str) -> None:
    """Measure detect.py on one image, from start to the written result."""
    words = ["--weights", weights, "--source", source, "--project", folder, "--exist-ok", "--device", "cpu"]
    forwards: list[float] = []

    def whole() -> None:
        output = python(str(ROOT / "detect.py"), *words)
        found = re.search(r"([\d.]+)ms inference", output)
        assert found, output
        forwards.append(float(found.group(1)) / 1e3)

    sides = {"detect.py": whole, BARE: lambda: python("-c", BARE), ALL: lambda: python("-c", ALL)}
    seconds = alternate(sides, rounds)
    forwards = forwards[-rounds:]
    for imports in (BARE, ALL):
        own = [all_ - bare - forward for all_, bare, forward in zip(
            seconds["detect.py"], seconds[imports], forwards, strict=True)]  # fmt: skip
        target = "<= 1.0" if imports == ALL else ""
        what = f"detect.py less `{imports}`, forward; s"
        table.add(ratio(what, target, own, [1.0] * rounds))
    table.add(slower("detect.py, one image, whole process", "", seconds, "detect.py", BARE))


def python(*words: str) -> str:
    """Run Python with a command line and return its output."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=Path.cwd())
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


if __name__ == "__main__":
    main()
