"""Score a COCO results file with pycocotools or faster-coco-eval, if one of them is installed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from utils.base.log import LOG
from utils.base.paths import workplace

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of COCO's 90 category ids, 80 are in use
COCO_IDS: tuple[int, ...] = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
_ANNOTATIONS = Path("annotations", "instances_val2017.json")


def find_annotations(root: Path) -> Path | None:
    """The ground truth of COCO val2017, below the dataset's root or in ../datasets/coco."""
    for folder in (root, workplace().parent / "datasets" / "coco"):
        if (folder / _ANNOTATIONS).is_file():
            return folder / _ANNOTATIONS
    return None


def coco_scores(
    predictions: Path, annotations: Path, image_ids: Sequence[int | str]
) -> tuple[float, float] | None:
    """(mAP50-95, mAP50) by COCO's own method, or None with a warning that says why not."""
    tools = _tools()
    if tools is None:
        LOG.warning("the COCO scores need: pip install pycocotools (or faster-coco-eval)")
        return None
    coco_class, eval_class = tools
    try:
        with redirect_stdout(StringIO()) as table:
            truth = coco_class(str(annotations))
            scorer = eval_class(truth, truth.loadRes(str(predictions)), "bbox")
            scorer.params.imgIds = list(image_ids)
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
    except (AssertionError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        LOG.warning(f"{predictions}: no COCO scores against {annotations} ({type(error).__name__}: {error})")
        return None
    LOG.info(table.getvalue().rstrip())
    return float(scorer.stats[0]), float(scorer.stats[1])


def _tools() -> tuple[Any, Any] | None:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        try:
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as COCOeval
        except ImportError:
            return None
    return COCO, COCOeval
