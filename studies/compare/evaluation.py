"""The metrics of one evaluation of a model, under the names of `studies.compare.metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from studies.compare.breakdown import ap_by_image, ap_by_size, error_costs
from studies.compare.metrics import METRICS, named

if TYPE_CHECKING:
    from utils.tasks.classify.validation import ClassifyResult
    from utils.val.accumulator import EvalResult, ValResult


def results_by_part(result: EvalResult) -> dict[str, EvalResult]:
    """Return the result of each part of a model with boxes, the main part first."""
    mask = getattr(result, "mask", None)  # of a `SegmentResult`
    return {"": result} if mask is None else {"mask": mask, "box": result}


def matched_parts(a: ValResult, b: ValResult) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield, for each part of two results, the names of its metrics, and the matches of both.

    The names are of mAP50, mAP50-95, and the AP50-95 of each class with labels; of top-1 and top-5.
    """
    if hasattr(a, "top1"):
        one_classifier, other = cast("ClassifyResult", a), cast("ClassifyResult", b)
        yield METRICS["classify"].compared, one_classifier.matches, other.matches
        return
    of_a, of_b = (results_by_part(cast("EvalResult", result)) for result in (a, b))
    for part, one in of_a.items():
        assert one.matches is not None
        classes = (named(part, f"AP/{name}") for name in one.class_ap)
        yield (named(part, "mAP50"), named(part, "mAP50-95"), *classes), one.matches, of_b[part].matches


def metrics_of(result: ValResult) -> dict[str, Any]:
    """Return what measured.json has of one evaluation; classes without labels have no metric."""
    if hasattr(result, "top1"):
        return _of_classifier(cast("ClassifyResult", result))
    return _of_detector(cast("EvalResult", result))


def _of_classifier(result: ClassifyResult) -> dict[str, Any]:
    return {"top-1": result.top1, "top-5": result.top5, "accuracy": result.class_accuracy}


def _of_detector(result: EvalResult) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for part, one in results_by_part(result).items():
        classes = one.class_ap
        values: dict[str, Any] = {
            "P": one.mp,
            "R": one.mr,
            "mAP50": one.map50,
            "mAP": one.map,
            "AP": {name: float(ap.mean()) for name, ap in classes.items()},
            "AP50": {name: float(ap[0]) for name, ap in classes.items()},
        }
        if one.matches is not None:
            values |= {f"AP {size}": ap for size, ap in ap_by_size(one.matches).items()}
            if part != "mask":
                values |= {f"dAP50 {kind}": cost for kind, cost in error_costs(one.matches).items()}
        metrics |= {named(part, name): value for name, value in values.items()}
    return metrics


def metrics_by_image(result: ValResult) -> dict[str, float]:
    """Return the metric of each image alone: the mean AP50-95 of its classes, or whether top-1 is right."""
    if hasattr(result, "top1"):
        matches = cast("ClassifyResult", result).matches
        return dict(zip(matches.paths, matches.hits[:, 0].astype(float).tolist(), strict=True))
    main = next(iter(results_by_part(cast("EvalResult", result)).values()))
    return {} if main.matches is None else ap_by_image(main.matches)
