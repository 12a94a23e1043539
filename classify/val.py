"""Measure a classification model on images in class folders: top-1 and top-5 accuracy, speed.

    python classify/val.py --weights yolov5s-cls.pt --data imagenette160 --img 224

From Python: `result = run(weights="yolov5s-cls.pt", data="imagenette160")`, then `result.top1`; or as the
original has it, `top1, top5, loss = run(...)`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: the project, not classify/

from utils.base import script
from utils.base.log import set_up_console
from utils.tasks.classify.options import ClassifyValOptions
from utils.val.val_options import parse_options
from utils.val.validate import validate

if TYPE_CHECKING:
    from utils.tasks.classify.validation import ClassifyResult


def run(data: Any = None, *values: Any, **keywords: Any) -> ClassifyResult:
    """Validate from Python; arguments as those of `val.run`, and the flags of this script."""
    set_up_console()
    from utils.compat.scripts import run_validation

    result: ClassifyResult = run_validation(ClassifyValOptions, data, values, keywords)
    return result


def main() -> None:
    """Validate as the command line says; nothing heavy is imported before it is parsed."""
    options = parse_options(cls=ClassifyValOptions)
    script.print_args("classify/val", options)
    validate(options)


if __name__ == "__main__":
    script.main(main)
