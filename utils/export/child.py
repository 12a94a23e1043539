"""The process of `utils.export.jobs.Job.export_apart`: python -m utils.export.child TASK ANSWER."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from utils.base.log import set_up_console
from utils.export.jobs import Job, as_json


def main() -> None:
    """Do the task, and write how it went."""
    set_up_console()
    task, answer = map(Path, sys.argv[1:])
    opt = Namespace(**json.loads(task.read_text()))
    report = Job(opt.weights[0], opt).export(opt.include[0])
    answer.write_text(as_json(report))


if __name__ == "__main__":
    main()
