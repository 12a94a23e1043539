"""Log a run to ClearML (package clearml)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.loggers.service_logger import ServiceLogger


class ClearMLLogger(ServiceLogger):
    """ClearML task: metrics and images, options as parameters, checkpoints as output models.

    Offline, the dataset is not uploaded, and a resumed run becomes a new task.
    """

    key = "clearml"

    def start(self) -> None:
        import clearml
        from clearml.utilities.check_updates import CheckPackageUpdates

        self.clearml = clearml
        self.offline = clearml.Task.is_offline()
        # ClearML's subprocess for reports inherits pipes of others, and sometimes hangs at its start or end.
        tasks: Any = clearml.Task
        tasks._report_subprocess_enabled = False
        if self.offline:
            CheckPackageUpdates._package_version_checked = True  # would contact its server, also offline
        self.task: Any = clearml.Task.init(
            project_name=self.project,
            task_name=self.folder.name,
            continue_last_task=(not self.offline and self.state.get("task")) or False,
            reuse_last_task_id=False,
            output_uri=None if self.offline else True,  # upload models; by default only their path is logged
            auto_connect_frameworks=False,
            auto_connect_arg_parser=False,
            auto_connect_streams=False,
        )
        self.task.set_initial_iteration(0)  # a continued task would add its last epoch to every step
        self.state["task"] = self.task.id
        if not self.offline:
            self.state["url"] = self.task.get_output_log_web_page()
        if self.offline or not self.resumed:
            self.task.connect(self.parameters, name="options")
        self.logger: Any = self.task.get_logger()

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            title, _, series = name.partition("/")
            self.logger.report_scalar(title, series, value, epoch)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self.logger.report_image(name, path.name, epoch, local_path=str(path))

    def log_final_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.logger.report_single_value(name, value)

    def log_checkpoints(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        for path in paths:
            if self.offline:  # models of ClearML need the server
                self.task.upload_artifact(path.stem, artifact_object=str(path), wait_on_upload=True)
                continue
            model = self.clearml.OutputModel(self.task, name=path.stem, tags=list(aliases))
            model.update_weights(str(path), auto_delete_file=False)

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        if self.offline:
            print("--upload_dataset: ClearML accepts datasets only online")
            return
        alias = self.options["artifact_alias"]
        dataset = self.clearml.Dataset.create(
            dataset_project=self.project, dataset_name=name, dataset_tags=[alias]
        )
        for name_inside, file in files.items():
            dataset.add_files(file, dataset_path=str(Path(name_inside).parent))
        dataset.upload()
        dataset.finalize()

    def finish(self, completed: bool) -> None:
        if not completed and not self.offline:
            self.task.mark_stopped(status_message="training was stopped")
        self.task.close()
