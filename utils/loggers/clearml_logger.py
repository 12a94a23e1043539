"""Hand a run to ClearML (package clearml)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.loggers.service_logger import ServiceLogger


class ClearMLLogger(ServiceLogger):
    """Figures and images of a task, options as its parameters, checkpoints as its output models.

    Offline, no dataset is taken, and a resumed run becomes a task of its own.
    """

    key = "clearml"

    def begin(self) -> None:
        import clearml
        from clearml.utilities.check_updates import CheckPackageUpdates

        self.clearml = clearml
        self.offline = clearml.Task.is_offline()
        # A process of its own for reports inherits pipes of others, and its start and end get stuck at times.
        tasks: Any = clearml.Task
        tasks._report_subprocess_enabled = False
        if self.offline:
            CheckPackageUpdates._package_version_checked = True  # it would ask its server, offline or not
        self.task: Any = clearml.Task.init(
            project_name=self.project,
            task_name=self.folder.name,
            continue_last_task=(not self.offline and self.notes.get("task")) or False,
            reuse_last_task_id=False,
            output_uri=None if self.offline else True,  # else models would stay on this machine
            auto_connect_frameworks=False,
            auto_connect_arg_parser=False,
            auto_connect_streams=False,
        )
        self.task.set_initial_iteration(0)  # a continued task would add its last epoch to each one
        self.notes["task"] = self.task.id
        if not self.offline:
            self.notes["url"] = self.task.get_output_log_web_page()
        if self.offline or not self.resumed:
            self.task.connect(self.flat, name="options")
        self.logger: Any = self.task.get_logger()

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        for name, value in row.items():
            title, _, series = name.partition("/")
            self.logger.report_scalar(title, series, value, epoch)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self.logger.report_image(name, path.name, epoch, local_path=str(path))

    def log_result(self, epoch: int, row: dict[str, float]) -> None:
        for name, value in row.items():
            self.logger.report_single_value(name, value)

    def log_model(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        for path in paths:
            if self.offline:  # ClearML's models want the server
                self.task.upload_artifact(path.stem, artifact_object=str(path), wait_on_upload=True)
                continue
            model = self.clearml.OutputModel(self.task, name=path.stem, tags=list(aliases))
            model.update_weights(str(path), auto_delete_file=False)

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        if self.offline:
            print("--upload_dataset: ClearML takes datasets only online")
            return
        alias = self.options["artifact_alias"]
        dataset = self.clearml.Dataset.create(
            dataset_project=self.project, dataset_name=name, dataset_tags=[alias]
        )
        for inside, file in files.items():
            dataset.add_files(file, dataset_path=str(Path(inside).parent))
        dataset.upload()
        dataset.finalize()

    def finish(self, done: bool) -> None:
        if not done and not self.offline:
            self.task.mark_stopped(status_message="training was stopped")
        self.task.close()
