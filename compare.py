"""Compare models honestly: several seeds, paired differences, and words that say what the numbers allow.

    python compare.py --cfg yolov5n.yaml yolov5n-LSKA.yaml --weights yolov5n.pt --data bccd.yaml \\
        --seeds 0 1 2 3 4 --epochs 40 --img 320          # train, measure, report
    python compare.py --weights a.pt b.pt --data bccd.yaml    # compare what is trained already
    python compare.py --report runs/compare/exp               # the report anew, from its csv files
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utils.base import script
from utils.compare.options import parse_compare, read_comparison


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    opt, rest = parse_compare(argv)
    from utils.compare import plan, runner

    comparison = read_comparison(opt, rest)
    project = Path(opt.project)
    runs = plan.plan_runs(comparison)
    work = runner.Runner(project, runner.share_out(opt.jobs, opt.device, opt.threads))
    runner.train_all(runs, project, work, opt.jobs)


if __name__ == "__main__":
    script.main(main)
