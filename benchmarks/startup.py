"""Start-up time of the scripts: `--help`, detect.py on one image against bare imports, and all other imports.

    python benchmarks/startup.py
    python benchmarks/startup.py --weights yolov5n.pt --source image.jpg

Times of whole processes; those of imports are what `-X importtime` counts.
A row in seconds is a ratio to one second.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from timing import ROOT, ResultTable, alternate, format_seconds, parser, ratio, slower, timed

from utils.base.paths import relative_to_cwd

SHARED = ROOT.parent / "shared"
SCRIPTS = ("train", "val", "detect", "export", "compare", "graft", "visualize")
BARE, ALL = "import torch, cv2", "import torch, torchvision, cv2"
HEAVY = ("torch", "cv2", "numpy", "matplotlib", "mpl_toolkits")
_IMPORT = re.compile(r"import time: +(\d+) \| +\d+ \| ( *)(\S+)")


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
        imports(table, opt.rounds, opt.weights, opt.source, folder)


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


def imports(table: ResultTable, rounds: int, weights: str, source: str, folder: str) -> None:
    """Measure what a whole run of detect.py, val.py and train.py imports beside large packages."""
    image, yaml = Path(folder, "data", "image" + Path(source).suffix), Path(folder, "data.yaml")
    image.parent.mkdir()
    image.write_bytes(Path(source).read_bytes())
    image.with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    names = "".join(f"  {index}: class {index}\n" for index in range(80))
    yaml.write_text(f"train: {image.parent}\nval: {image.parent}\nnames:\n{names}")
    on = ["--weights", weights, "--project", folder, "--device", "cpu"]
    data = [*on, "--data", str(yaml), "--img", "320", "--batch-size", "1"]
    jobs = {
        "detect.py": [*on, "--source", str(image)],
        "val.py": data,
        "train.py": [*data, "--epochs", "1"],
    }
    for script, words in jobs.items():
        outputs = [python("-X", "importtime", str(ROOT / script), *words, stderr=True) for _ in range(rounds)]
        seconds = [import_seconds(each.splitlines()) for each in outputs]
        plots = statistics.median(drawing for _, drawing in seconds)
        what = f"{script}, imports beside torch, cv2, numpy, matplotlib; s"
        own = [own for own, _ in seconds]
        table.add(ratio(what, "<= 0.3", own, [1.0] * rounds, f"matplotlib {format_seconds(plots)}"))


def import_seconds(lines: Iterable[str]) -> tuple[float, float]:
    """Return the seconds of the imports that `-X importtime` lists, less `HEAVY`, and those of matplotlib."""
    found = [_IMPORT.fullmatch(line) for line in lines]
    own = matplotlib = 0
    inside, depth_inside = "", 0  # the package of `HEAVY` whose imports these are
    for match in reversed([each for each in found if each]):  # a module is listed after those it imports
        depth, package = len(match[2]), match[3].partition(".")[0]
        if inside and depth <= depth_inside:
            inside = ""
        if not inside and package in HEAVY:
            inside, depth_inside = package, depth
        if not inside:
            own += int(match[1])
        elif inside == "matplotlib":
            matplotlib += int(match[1])
    return own / 1e6, matplotlib / 1e6


def python(*words: str, stderr: bool = False) -> str:
    """Run Python with a command line and return its output."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=Path.cwd())
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stderr if stderr else done.stdout


if __name__ == "__main__":
    main()
