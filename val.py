"""Measure a model on labelled images: precision, recall, mAP, speed.

    python val.py --weights yolov5s.pt --data data/coco128.yaml --img 640     # the val split
    python val.py --weights a.pt b.pt --task test                             # an ensemble, the test split
    python val.py --weights a.pt b.pt --task study                            # sizes from 256 to 1536

From Python: `result = val.run(weights="yolov5s.pt", data="coco128.yaml")`, then `result.map50`; or as the
original has it, `(p, r, map50, map, *losses), maps, speeds = val.run(...)`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "." in __name__:  # `yolov5.val`: the packages are beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from utils.base import script
from utils.base.log import set_up_console
from utils.base.yolov5_names import serve
from utils.val.measure import measure
from utils.val.val_options import options_from, parse_options
from utils.val.validate import validate

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult

_IN_MEMORY = ("model", "dataloader", "save_dir", "plots", "callbacks", "compute_loss")
_POSITIONAL = ("weights", "batch_size", "imgsz", "conf_thres", "iou_thres", "max_det")


def run(data: Any = None, *values: Any, **kwargs: Any) -> EvalResult:
    """Validate from Python and return the result of the last model measured.

    Keywords are the flags with underscores, such as `batch_size=16`; those of `_POSITIONAL` may be given by
    position. `data` may be the content of a yaml. With `model` a model in memory is validated, see
    `utils.compat.scripts.validate_model`.
    """
    set_up_console()
    kwargs |= dict(zip(_POSITIONAL, values, strict=False))
    if isinstance(data, dict):
        from utils.compat.checks import as_yaml

        with as_yaml(data) as file:
            return run(file, **kwargs)
    if kwargs.get("model") is not None:
        from utils.compat.scripts import validate_model

        return validate_model(kwargs.pop("model"), kwargs.pop("dataloader", None), data, **kwargs)
    given = {key: value for key, value in kwargs.items() if key not in _IN_MEMORY}
    options = options_from(given if data is None else {"data": data, **given})
    if kwargs.get("plots", True) or options.save_txt or options.save_json:
        return validate(options)
    return measure(options)


def main() -> None:
    """Validate as the command line says; nothing heavy is imported before it is parsed."""
    options = parse_options()
    script.print_args("val", options)
    validate(options)


__getattr__, __dir__, _ = serve("val")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
