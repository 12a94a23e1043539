"""The names that YOLOv5's Python modules have had, and where each is implemented here.

`utils/general.py`, `utils/torch_utils.py` and the other modules with YOLOv5's names consist of `serve`
alone. It imports what a name stands for when it is used, so that a list of imports costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NoReturn

# A target is `module:` (the same name there), `module:name`, or `module`, which is the module itself. One
# that starts with `!` exists, so that lists of imports work, and says when it is called what to use instead.
_STANDARD = {name: name for name in ("os", "cv2", "math", "random", "time", "glob", "shutil", "yaml", "json")}
_STANDARD |= {
    name: name for name in ("argparse", "logging", "platform", "re", "subprocess", "sys", "warnings")
}
_STANDARD |= {"np": "numpy", "torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional", "pd": "pandas"}
_STANDARD |= {"Path": "pathlib:", "tqdm": "tqdm:", "Image": "PIL.Image", "deepcopy": "copy:"}
_STANDARD |= {"contextmanager": "contextlib:", "Thread": "threading:", "torchvision": "torchvision"}


def _standard(names: str) -> dict[str, tuple[str, str]]:
    """Return rows for libraries that the original's module had imported, which scripts take from it."""
    return {name: (_STANDARD[name], "all") for name in names.split()}


def _rows(module: str, text: str, ages: str = "all") -> dict[str, tuple[str, str]]:
    """Return rows of names that are in one of our modules; `old=name` for one that has another name here."""
    rows = {}
    for word in text.split():
        old, _, name = word.partition("=")
        rows[old] = f"{module}:{name or old}", ages
    return rows


def _advice(advice: str, text: str, ages: str = "all") -> dict[str, tuple[str, str]]:
    return {name: (f"!{advice}", ages) for name in text.split()}


_NO_LOGGER = "loggers are chosen by the flags of train.py; docs/loggers.md says how to write one"
_NO_TF = "use export.run(weights=..., include=['saved_model'])"

_BOXES = (
    _rows("utils.ops.boxes", "xyxy2xywhn xywhn2xyxy xyn2xy segment2box segments2boxes resample_segments")
    | _rows("utils.compat.boxes", "xyxy2xywh xywh2xyxy clip_boxes non_max_suppression")
    | _rows("utils.compat.boxes", "scale_boxes scale_segments", "v7.0 and later")
    | _rows("utils.compat.boxes", "scale_coords clip_coords", "until v6.2")
)
_MEASURES = _rows("utils.ops.boxes", "box_iou bbox_ioa=box_ioa") | _rows(
    "utils.ops.precision", "compute_ap smooth"
)
_GENERAL_METRICS = (
    _rows("utils.compat.metrics", "bbox_iou=bbox_iou_xyxy fitness wh_iou ap_per_class") | _MEASURES
)
_MAIN = (
    _rows(
        "utils.compat.checks", "check_img_size check_imshow check_file check_yaml check_suffix check_version"
    )
    | _rows(
        "utils.compat.checks", "check_dataset check_requirements check_git_status check_git_info check_online"
    )
    | _rows("utils.compat.checks", "check_python check_font is_ascii is_chinese is_colab is_kaggle is_docker")
    | _rows("utils.compat.checks", "is_notebook is_writeable url2file")
    | _rows("utils.compat.helpers", "intersect_dicts file_size file_age file_date")
    | _rows("utils.compat.helpers", "download unzip_file user_config_dir get_latest_run yaml_load")
    | _rows("utils.compat.helpers", "yaml_save increment_path strip_optimizer clean_str emojis methods")
    | _rows("utils.compat.checks", "colorstr print_args set_logging")
    | _rows("utils.compat.helpers", "WorkingDirectory Timeout try_except")
    | _rows(
        "utils.compat.checks", "LOGGER ROOT FILE DATASETS_DIR CONFIG_DIR RANK NUM_THREADS AUTOINSTALL VERBOSE"
    )
    | _rows("utils.compat.checks", "TQDM_BAR_FORMAT NCOLS FONT LOGGING_NAME")
    | _rows("utils.compat.helpers", "init_seeds one_cycle one_flat_cycle")
    | _rows("utils.compat.helpers", "labels_to_class_weights labels_to_image_weights coco80_to_coco91_class")
    | _rows("utils.compat.helpers", "apply_classifier make_divisible TryExcept threaded")
    | _rows("utils.compat.torch_tools", "Profile")
    | _rows("utils.compat.drawing", "save_one_box", "2021 to v6.0")
    | _rows("utils.compat.drawing", "plot_one_box", "v3")
    | _rows("utils.compat.torch_tools", "check_amp")
    | _BOXES
    | _advice("train.py --evolve writes its own tables; docs/evolve.md", "print_mutation")
    | _advice("use torch.hub.load(..., source='local')", "smart_hub_load")
)

TABLE: dict[str, dict[str, tuple[str, str]]] = {
    "models.common": {
        **_rows("utils.compat.models", "DetectMultiBackend", "v6.1 and later"),
        **_rows("models.autoshape", "AutoShape Detections"),
        **_rows("models.autoshape", "autoShape=AutoShape", "v5.0"),
        **_rows("utils.compat.blocks", "autopad"),
        **_rows("utils.tasks.segment.head", "Proto"),
        **_rows("utils.tasks.classify.head", "Classify"),
        **_rows("utils.compat.drawing", "Annotator colors save_one_box plot_one_box"),
        **_rows("utils.compat.augment", "letterbox"),
        **_rows("utils.compat.checks", "check_file colorstr check_requirements check_suffix LOGGER")
        | _rows("utils.compat.helpers", "increment_path"),
        **_rows("utils.compat.checks", "check_version ROOT check_yaml print_args")
        | _rows("utils.compat.helpers", "yaml_load make_divisible"),
        **_rows("utils.compat.loaders", "exif_transpose", "v5.0 and later"),
        **_rows(
            "utils.compat.boxes",
            "non_max_suppression scale_boxes scale_coords xyxy2xywh xywh2xyxy",
        ),
        **_rows("utils.compat.torch_tools", "copy_attr smart_inference_mode time_sync select_device"),
        **_standard("torch nn np os yaml json argparse Path math cv2 platform warnings Image deepcopy pd"),
    },
    "models.experimental": {
        **_rows("utils.compat.models", "attempt_load Ensemble"),
        **_rows("utils.compat.blocks", "Sum"),
        **_rows("models.common", "MixConv2d"),
        **_rows("models.common", "CrossConv", "until v6.1"),
        **_rows("models.common", "GhostConv GhostBottleneck", "v5.0"),
        **_rows("models.common", "C3 Conv DWConv"),
        **_rows("utils.compat.downloads", "attempt_download"),
        **_standard("math np torch nn"),
    },
    "models.yolo": {
        **_rows(
            "models.common", "Conv C3 C3SPP C3TR C3Ghost C3x SPP SPPF Focus Concat Contract Expand DWConv"
        ),
        **_rows(
            "models.common", "Bottleneck BottleneckCSP GhostConv GhostBottleneck DWConvTranspose2d CrossConv"
        ),
        **_rows("models.common", "MixConv2d AutoShape autoShape DetectMultiBackend"),
        **_rows("utils.tasks.segment.head", "Proto"),
        **_rows("utils.tasks.classify.head", "Classify"),
        **_rows("models.yolo", "BaseModel=DetectionModel", "v6.2 and later"),
        **_rows(
            "utils.compat.checks",
            "check_file colorstr set_logging check_yaml check_version print_args LOGGER",
        ),
        **_rows("utils.compat.checks", "ROOT FILE"),
        **_rows("utils.compat.helpers", "make_divisible"),
        **_rows(
            "utils.compat.torch_tools",
            "select_device time_sync time_synchronized fuse_conv_and_bn model_info",
        ),
        **_rows("utils.compat.torch_tools", "scale_img initialize_weights copy_attr profile"),
        **_rows("utils.compat.training", "check_anchor_order"),
        **_rows("utils.compat.drawing", "feature_visualization"),
        **_standard("nn torch np os yaml json argparse Path math deepcopy logging sys platform subprocess"),
    },
    "models.tf": _advice(
        _NO_TF,
        "TFConv TFBN TFDetect TFModel TFPad TFDWConv TFBottleneck TFC3 TFSPPF TFSPP TFFocus TFConcat "
        "TFUpsample TFSegment TFProto TFBottleneckCSP TFCrossConv TFC3x TFConv2d parse_model "
        "representative_dataset_gen activations",
    ),
    "utils": _rows("utils.compat.helpers", "TryExcept threaded notebook_init join_threads emojis"),
    "utils.triton": _advice("use DetectMultiBackend('http://...')", "TritonRemoteModel"),
    "utils.general": {
        **_MAIN,
        **_GENERAL_METRICS,
        **_rows("utils.compat.drawing", "color_list plot_images plot_labels plot_results", "v3"),
        **_rows("utils.compat.downloads", "is_url gsutil_getsize curl_download", "v6.0 and later"),
        **_standard(
            "os cv2 np torch torchvision Path time random glob math yaml re platform subprocess logging"
        ),
        **_standard("shutil contextmanager Thread pd sys"),
    },
    "utils.torch_utils": {
        **_rows(
            "utils.compat.torch_tools",
            "select_device time_sync time_synchronized smart_inference_mode Profile",
        ),
        **_rows(
            "utils.compat.torch_tools", "ModelEMA EarlyStopping torch_distributed_zero_first de_parallel"
        ),
        **_rows(
            "utils.compat.torch_tools",
            "is_parallel smart_optimizer smart_resume smart_DDP model_info profile",
        ),
        **_rows(
            "utils.compat.torch_tools", "fuse_conv_and_bn scale_img copy_attr initialize_weights find_modules"
        ),
        **_rows(
            "utils.compat.torch_tools",
            "sparsity prune reshape_classifier_output device_count init_torch_seeds",
        ),
        **_rows("utils.compat.classify", "smartCrossEntropyLoss=smart_cross_entropy", "v6.2 and later"),
        **_rows("utils.compat.checks", "LOGGER colorstr check_version")
        | _rows("utils.compat.helpers", "file_date one_cycle init_seeds intersect_dicts"),
        **_rows("utils.compat.helpers", "date_modified=file_date git_describe", "until v6.0"),
        **_advice(
            "build the second classifier with torchvision and give it to apply_classifier", "load_classifier"
        ),
        **_standard("torch nn F os time math np Path platform subprocess logging deepcopy torchvision"),
        **_standard("contextmanager warnings"),
    },
    "utils.plots": {
        **_rows("utils.compat.drawing", "Annotator colors Colors save_one_box plot_images"),
        **_rows("utils.plots.batches", "output_to_target"),
        **_rows("utils.compat.checks", "check_font check_pil_font=check_font"),
        **_rows("utils.compat.drawing", "plot_labels plot_results plot_evolve"),
        **_rows("utils.compat.drawing", "feature_visualization imshow_cls plot_lr_scheduler hist2d"),
        **_rows("utils.compat.drawing", "butter_lowpass_filtfilt"),
        **_rows("utils.compat.drawing", "plot_one_box plot_one_box_PIL color_list", "until 2021"),
        **_rows("utils.compat.checks", "is_ascii is_chinese LOGGER CONFIG_DIR RANK")
        | _rows("utils.compat.helpers", "increment_path"),
        **_rows("utils.compat.boxes", "xyxy2xywh xywh2xyxy clip_coords clip_boxes"),
        **_rows("utils.compat.masks", "scale_image"),
        **_rows("utils.compat.metrics", "fitness"),
        **_advice("train.py --evolve draws evolve.png", "plot_evolution", "v5.0"),
        **_advice(
            "val.py --task study draws it", "plot_val_study plot_study_txt plot_val_txt plot_targets_txt"
        ),
        **_standard("cv2 math np os random torch Path yaml glob pd Image"),
    },
    "utils.augmentations": {
        **_rows(
            "utils.compat.augment", "letterbox Albumentations augment_hsv copy_paste mixup random_perspective"
        ),
        **_rows(
            "utils.compat.augment", "classify_transforms CenterCrop ToTensor LetterBox normalize denormalize"
        ),
        **_rows(
            "utils.compat.augment", "hist_equalize replicate cutout box_candidates IMAGENET_MEAN IMAGENET_STD"
        ),
        **_rows("utils.compat.augment", "classify_albumentations"),
        **_rows("utils.compat.checks", "LOGGER check_version colorstr"),
        **_MEASURES,
        **_rows("utils.ops.boxes", "resample_segments segment2box xywhn2xyxy"),
        **_standard("math random cv2 np torch"),
    },
    "utils.metrics": {
        **_rows("utils.compat.metrics", "ap_per_class ConfusionMatrix fitness bbox_iou wh_iou"),
        **_rows("utils.compat.metrics", "plot_pr_curve plot_mc_curve"),
        **_MEASURES,
        **_standard("math warnings Path np torch"),
    },
    "utils.loss": {
        **_rows("utils.compat.training", "ComputeLoss FocalLoss QFocalLoss BCEBlurWithLogitsLoss smooth_BCE"),
        **_rows("utils.compat.training", "compute_loss", "v3"),
        **_advice("use ComputeLoss(model)", "build_targets", "v3"),
        **_rows("utils.compat.metrics", "bbox_iou"),
        **_rows("utils.compat.torch_tools", "de_parallel is_parallel"),
        **_standard("torch nn"),
    },
    "utils.autoanchor": {
        **_rows("utils.compat.training", "check_anchors kmean_anchors check_anchor_order"),
        **_rows("utils.compat.checks", "LOGGER colorstr"),
        **_rows("utils.compat.helpers", "TryExcept"),
        **_standard("random np torch yaml tqdm"),
    },
    "utils.autobatch": _rows("utils.compat.training", "check_train_batch_size autobatch"),
    "utils.callbacks": _rows("utils.compat.callbacks", "Callbacks"),
    "utils.downloads": {
        **_rows(
            "utils.compat.downloads", "attempt_download is_url gsutil_getsize curl_download safe_download"
        ),
        **_rows("utils.compat.downloads", "url_getsize get_token gdrive_download"),
        **_standard("os platform subprocess time Path torch logging"),
    },
    "utils.activations": {
        **_rows("torch.nn", "SiLU Hardswish Mish"),
        **_rows("utils.compat.blocks", "MemoryEfficientMish MemoryEfficientSwish FReLU AconC MetaAconC"),
        **_rows("torch.nn", "Swish=SiLU", "until v5.0"),
        **_standard("torch nn F"),
    },
    "utils.loggers": _advice(
        _NO_LOGGER, "Loggers GenericLogger log_tensorboard_graph web_project_name LOGGERS"
    ),
    "utils.loggers.wandb.wandb_utils": _advice(
        _NO_LOGGER, "WandbLogger process_wandb_config_ddp_mode check_wandb_dataset"
    )
    | _rows("utils.compat.helpers", "check_wandb_resume=no_resume"),
    "utils.loggers.comet": _advice(_NO_LOGGER, "CometLogger"),
    "utils.loggers.comet.comet_utils": _rows("utils.compat.helpers", "check_comet_resume=no_resume"),
    "utils.loggers.clearml": _advice(_NO_LOGGER, "ClearmlLogger"),
    "utils.loggers.clearml.clearml_utils": _advice(_NO_LOGGER, "ClearmlLogger construct_dataset"),
    "utils.wandb_logging.wandb_utils": _advice(
        _NO_LOGGER, "WandbLogger resume_and_get_id check_wandb_resume"
    ),
    "utils.segment.general": _rows(
        "utils.compat.masks",
        "process_mask process_mask_native process_mask_upsample scale_image masks_iou masks2segments",
    )
    | _rows("utils.tasks.segment.masks", "crop_mask mask_iou"),
    "utils.segment.plots": _rows("utils.compat.drawing", "plot_results plot_results_with_masks=plot_results")
    | _rows("utils.compat.segment", "plot_images_and_masks"),
    "utils.segment.loss": _rows("utils.compat.segment", "ComputeLoss"),
    "utils.segment.dataloaders": _rows(
        "utils.compat.segment", "create_dataloader polygon2mask polygons2masks polygons2masks_overlap"
    ),
    "utils.segment.metrics": _rows("utils.compat.segment", "ap_per_class_box_and_mask fitness KEYS"),
    "utils.segment.augmentations": _rows("utils.compat.augment", "random_perspective mixup"),
}

_LOADERS = {
    **_rows("utils.compat.loaders", "LoadScreenshots", "v7.0 and later"),
    **_rows("utils.compat.loaders", "LoadWebcam", "until v6.2"),
    **_rows("utils.compat.loaders", "IMG_FORMATS VID_FORMATS img2label_paths exif_size exif_transpose"),
    **_rows("utils.compat.loaders", "img_formats=IMG_FORMATS vid_formats=VID_FORMATS", "until v5.0"),
    **_rows("utils.compat.training", "create_dataloader LoadImagesAndLabels InfiniteDataLoader"),
    **_rows("utils.compat.augment", "letterbox"),
    **_rows("utils.compat.augment", "augment_hsv random_perspective mixup Albumentations"),
    **_rows("utils.compat.augment", "copy_paste hist_equalize replicate cutout"),
    **_rows("utils.compat.checks", "check_file check_requirements check_dataset LOGGER colorstr")
    | _rows("utils.compat.helpers", "init_seeds"),
    **_rows("utils.compat.checks", "check_yaml DATASETS_DIR RANK NUM_THREADS")
    | _rows("utils.compat.helpers", "clean_str"),
    **_rows("utils.compat.checks", "TQDM_BAR_FORMAT is_colab is_kaggle")
    | _rows("utils.compat.helpers", "unzip_file"),
    **_rows("utils.compat.torch_tools", "torch_distributed_zero_first"),
    **_rows("utils.ops.boxes", "xyn2xy xywhn2xyxy xyxy2xywhn segments2boxes resample_segments segment2box"),
    **_rows("utils.compat.boxes", "xyxy2xywh xywh2xyxy"),
    **_advice("pack or list images with python -m utils.data", "autosplit HUBDatasetStats dataset_stats"),
    **_advice(
        "use the methods of the dataset that create_dataloader returns",
        "load_image load_mosaic load_mosaic9 verify_image_label flatten_recursive extract_boxes",
    ),
    **_standard("Path random time os np torch cv2 glob shutil tqdm math logging json yaml Image"),
    **_standard("torchvision F nn Thread deepcopy contextmanager"),
}
TABLE["utils.dataloaders"] = (
    _LOADERS
    | _rows("utils.compat.loaders", "LoadImages LoadStreams")
    | _rows("utils.compat.classify", "create_classification_dataloader ClassificationDataset")
)
TABLE["utils.datasets"] = (
    _LOADERS
    | _rows(
        "utils.compat.loaders", "LoadImages=DatasetsLoadImages LoadStreams=DatasetsLoadStreams", "until v6.1"
    )
    | _rows("utils.compat.loaders", "LoadWebcam=DatasetsLoadWebcam", "until v6.1")
)
TABLE["utils.google_utils"] = TABLE["utils.downloads"]
TABLE["utils.utils"] = (
    TABLE["utils.general"]
    | TABLE["utils.metrics"]
    | TABLE["utils.loss"]
    | TABLE["utils.autoanchor"]
    | TABLE["utils.plots"]
    | {"torch_utils": ("utils.torch_utils", "v1, v2"), "google_utils": ("utils.google_utils", "v1, v2")}
    | _advice("use ComputeLoss(model)", "build_targets", "v1, v2")
)

_SCRIPT = (
    _standard("os sys argparse platform np torch Path time json random math")
    | _rows(
        "utils.compat.checks",
        "ROOT LOGGER check_file check_img_size check_imshow check_requirements check_dataset check_yaml "
        "colorstr print_args",
    )
    | _rows("utils.compat.helpers", "increment_path strip_optimizer")
)
TABLE["detect"] = _SCRIPT | _rows("utils.compat.scripts", "parse_opt=detect_parse_opt")
TABLE["val"] = _SCRIPT | _rows("utils.compat.scripts", "parse_opt=val_parse_opt")
TABLE["train"] = _SCRIPT | _rows("utils.compat.scripts", "parse_opt=train_parse_opt")
TABLE["export"] = (
    _SCRIPT
    | _rows("utils.compat.scripts", "parse_opt=export_parse_opt export_formats")
    | _advice(
        "use export.run(weights=..., include=[...])",
        "export_torchscript export_onnx export_openvino export_engine export_coreml export_saved_model "
        "export_pb export_tflite export_edgetpu export_tfjs export_paddle",
    )
)


def serve(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` for a module with YOLOv5's names.

    Args:
        module: its name, such as `utils.general`, the key of `TABLE`.
    """
    names = TABLE[module]

    def getter(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return resolve(names[name][0], name)

    return getter, lambda: sorted(names), list(names)


def resolve(target: str, name: str) -> Any:
    """Return what a target of `TABLE` stands for."""
    if target.startswith("!"):
        return unavailable(name, target[1:])
    module, colon, attribute = target.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute or name) if colon else found


def unavailable(name: str, advice: str) -> type:
    """Make a class that raises NotImplementedError with `advice` when it is called."""

    def construct(cls: type, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"YOLOv5-LSKA has no {name}: {advice}")

    return type(name, (), {"__new__": construct, "__doc__": advice})
