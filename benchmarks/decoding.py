"""JPEG decoders on small and large images, and the effect of --fast-decode.

    python benchmarks/decoding.py                        # needs simplejpeg: pip install simplejpeg
    python benchmarks/decoding.py --images ../shared/data/bccd/images/train

One thread. Ratios are relative to OpenCV, which the package uses: above 1, the other decoder is faster. The
column `sides` has the share of values that differ from OpenCV's.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import timing  # noqa: F401 - before torch, as it sets how idle threads wait
import torch
from timing import ROOT, Ratio, ResultTable, alternate, faster, parser

from utils.base.log import LOG
from utils.data.dataset import DetectionDataset
from utils.data.images import decode_image

Decoder = Callable[[bytes], np.ndarray]
SIZE = 640  # image size (pixels) for which large images are decoded
LARGE_WH = 4000, 3000


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    folders = (parent / "shared/data/bccd/images/train" for parent in ROOT.parents)
    default = next((str(folder) for folder in folders if folder.is_dir()), "")
    p.add_argument("--images", "--pictures", default=default, help="folder of small JPEGs; default: BCCD's")
    opt = p.parse_args()
    small = sorted(Path(opt.images).glob("*.jpg"))[:20] if opt.images else []
    if not small:
        sys.exit(f"--images {opt.images or 'DIR'}: expected a folder of small *.jpg files")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    table = ResultTable("Decoding", opt.csv)
    large = [large_jpeg()]
    for what, files in (("small", [path.read_bytes() for path in small]), ("12 MP", large)):
        for line in compare_decoders(what, files, opt.rounds):
            table.add(line)
    for line in reduced(large[0], opt.rounds):
        table.add(line)


def compare_decoders(what: str, files: list[bytes], rounds: int) -> list[Ratio]:
    """Compare each decoder with OpenCV."""
    functions = decoders()

    def all_of(decode: Decoder) -> Callable[[], None]:
        def work() -> None:
            for data in files:
                decode(data)

        return work

    seconds = alternate({name: all_of(decode) for name, decode in functions.items()}, rounds, least=0.05)
    lines = []
    for name, decode in functions.items():
        if name != "OpenCV":
            actual, expected = decode(files[0]), functions["OpenCV"](files[0])
            line = faster(f"{name}, {what}", "", seconds, name, "OpenCV")
            other = f", {(actual != expected).mean():.0%} of values differ"
            lines.append(Ratio(line.what, "", line.median, line.low, line.high, line.sides + other))
    return lines


def decoders() -> dict[str, Decoder]:
    """Return the decoders by name; all return BGR (H, W, 3), torchvision a view of its planes."""
    try:
        import simplejpeg
    except ImportError:
        sys.exit("this benchmark needs: pip install simplejpeg")
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    def torchvision(data: bytes) -> np.ndarray:
        planes = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        return planes.numpy()[::-1].transpose(1, 2, 0)

    return {
        "OpenCV": lambda data: decode_image(np.frombuffer(data, np.uint8), "x"),
        "torchvision": torchvision,
        "simplejpeg": lambda data: simplejpeg.decode_jpeg(data, "BGR"),
        "simplejpeg, fast DCT": lambda data: simplejpeg.decode_jpeg(
            data, "BGR", fastdct=True, fastupsample=True
        ),
        "PIL": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., ::-1],
    }


def large_jpeg() -> bytes:
    """Return a random image of 12 megapixels with soft shapes and sensor noise, as JPEG."""
    rng = np.random.default_rng(0)
    width, height = LARGE_WH
    soft = cv2.resize(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), (width, height))
    for _ in range(300):
        x, y, radius = rng.integers(0, (width, height, 200)).tolist()
        cv2.circle(soft, (x, y), radius, rng.integers(0, 256, 3).tolist(), cv2.FILLED)
    grain = rng.normal(0, 4, soft.shape).astype(np.float32)
    image = (soft + grain).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()


def reduced(data: bytes, rounds: int) -> list[Ratio]:
    """Compare samples of one file and of a mosaic, with and without --fast-decode."""
    lines = []
    LOG.disabled = True
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        Path(folder, "labels").mkdir()
        for number in range(4):
            (images / f"{number}.jpg").write_bytes(data)
            (Path(folder, "labels") / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        for what, mosaic in (("one image", 0.0), ("a mosaic", 1.0)):
            sides = {
                name: sample(images, mosaic, fast) for name, fast in (("reduced", True), ("whole", False))
            }
            seconds = alternate(sides, rounds, least=0.05)
            lines.append(
                faster(f"--fast-decode, {what} of 4000 x 3000 at {SIZE}", "", seconds, "reduced", "whole")
            )
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    part = decode_image(np.frombuffer(data, np.uint8), "x", 4)
    size = SIZE, SIZE * 3 // 4
    best = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
    lines.append(fidelity("reduced", cv2.resize(part, size), best, cv2.resize(whole, size)))
    return lines


def sample(images: Path, mosaic: float, fast: bool) -> Callable[[], object]:
    """Return a function that makes a training sample from files, without an image cache."""
    from utils.base.yaml_io import read_yaml

    hyp = {**read_yaml(ROOT / "data/hyps/hyp.scratch-low.yaml"), "mosaic": mosaic}
    data = DetectionDataset([images], SIZE, augment=True, hyp=hyp, fast_decode=fast)
    data._reader._cache = None
    return lambda: data[(0, 0)]


def fidelity(name: str, found: np.ndarray, best: np.ndarray, usual: np.ndarray) -> Ratio:
    """Compare PSNR (dB) with and without the flag; the reference is area interpolation, as in validation."""
    ours, theirs = (float(cv2.PSNR(image, best)) for image in (found, usual))
    ratio = ours / theirs
    what = "--fast-decode, PSNR against shrinking by area"
    return Ratio(what, ">= 1", ratio, ratio, ratio, f"{name} {ours:.1f} dB, whole {theirs:.1f} dB")


if __name__ == "__main__":
    main()
