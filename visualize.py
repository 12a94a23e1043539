"""Show what models see: receptive fields, attention gates, heat maps for detections and classes.

    python visualize.py --weights yolov5n.pt best.pt --source data/images   # side by side
    python visualize.py --weights best.pt --cfg yolov5n-LSKA.yaml           # after and before training
    python visualize.py --weights best-cls.pt --classes 2                   # of classification, for a class

From Python: `visualize.run(weights=["a.pt", "b.pt"], source="images/")`. See docs/visualize.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studies.explain.visualize_options import VisualizeOptions
from utils.base import script
from utils.base.options import options_from, parse_options

if TYPE_CHECKING:
    from studies.explain.visualizers import VisualizeSummary


def run(**kwargs: Any) -> VisualizeSummary:
    """Draw figures; keywords are the flags with underscores for dashes.

    Raises:
        ConfigError, DataError: options, models or images that cannot be used.
    """
    from studies.explain.visualizers import visualize

    return visualize(options_from(VisualizeOptions, kwargs))


def main() -> None:
    """Draw figures as the command line says."""
    options = parse_options(VisualizeOptions)
    script.print_args("visualize", options)
    from studies.explain.visualizers import visualize  # heavy, so that --help and usage errors are fast

    visualize(options)


if __name__ == "__main__":
    script.main(main)
