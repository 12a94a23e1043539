"""Every name of YOLOv5's modules exists, is cheap to import, or says what to use instead."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from utils.base.paths import ROOT
from utils.base.yolov5_names import TABLE

# The names that scripts import most, by module (more than 1,500 imports in 129 scripts).
FREQUENT = {
    "utils.general": (
        "check_img_size non_max_suppression scale_coords scale_boxes increment_path xyxy2xywh check_imshow "
        "strip_optimizer check_requirements colorstr LOGGER check_file print_args set_logging "
        "apply_classifier cv2 check_dataset Profile init_seeds labels_to_class_weights get_latest_run "
        "labels_to_image_weights "
        "one_cycle print_mutation save_one_box check_suffix scale_segments xywh2xyxy check_git_status "
        "check_version check_yaml methods box_iou fitness coco80_to_coco91_class intersect_dicts "
        "check_amp"
    ),
    "utils.torch_utils": (
        "select_device time_sync time_synchronized load_classifier smart_inference_mode ModelEMA "
        "torch_distributed_zero_first intersect_dicts smart_optimizer EarlyStopping de_parallel is_parallel "
        "smart_resume smart_DDP model_info fuse_conv_and_bn scale_img copy_attr initialize_weights"
    ),
    "utils.plots": (
        "Annotator colors Colors save_one_box plot_one_box plot_images output_to_target plot_labels "
        "plot_results plot_evolve plot_evolution plot_val_study feature_visualization color_list hist2d"
    ),
    "utils.dataloaders": "LoadImages LoadStreams LoadScreenshots IMG_FORMATS VID_FORMATS create_dataloader",
    "utils.datasets": (
        "LoadImages LoadStreams LoadWebcam IMG_FORMATS VID_FORMATS img_formats vid_formats letterbox "
        "create_dataloader LoadImagesAndLabels img2label_paths exif_size"
    ),
    "utils.augmentations": (
        "letterbox classify_transforms Albumentations augment_hsv copy_paste mixup random_perspective"
    ),
    "utils.metrics": "ap_per_class ConfusionMatrix fitness box_iou bbox_iou bbox_ioa wh_iou compute_ap",
    "utils.loss": "ComputeLoss FocalLoss QFocalLoss BCEBlurWithLogitsLoss smooth_BCE",
    "utils.autoanchor": "check_anchors kmean_anchors check_anchor_order",
    "utils.autobatch": "check_train_batch_size autobatch",
    "utils.callbacks": "Callbacks",
    "utils.downloads": "attempt_download is_url gsutil_getsize curl_download",
    "utils.google_utils": "attempt_download gdrive_download",
    "utils.activations": "SiLU Hardswish Mish MemoryEfficientMish FReLU AconC MetaAconC",
    "utils.segment.general": "process_mask masks2segments process_mask_native scale_image crop_mask mask_iou",
    "utils.utils": "compute_loss build_targets torch_utils google_utils plot_one_box ap_per_class",
    "utils.loggers": "Loggers GenericLogger",
    "utils.loggers.wandb.wandb_utils": "check_wandb_resume WandbLogger",
    "models.common": (
        "DetectMultiBackend AutoShape autoShape Detections Conv C3 SPPF SPP Concat Bottleneck Focus DWConv "
        "GhostConv Contract Expand Classify Proto autopad"
    ),
    "models.experimental": "attempt_load Ensemble MixConv2d Sum CrossConv GhostConv attempt_download",
    "models.yolo": "Model DetectionModel SegmentationModel ClassificationModel Detect Segment parse_model",
    "models.tf": "TFDetect TFConv TFBN",
    "detect": "run parse_opt main ROOT Path",
    "val": "run parse_opt",
    "train": "run parse_opt",
    "export": "run parse_opt export_formats export_torchscript export_tflite",
    "test": "test",
}


@pytest.mark.parametrize("module", sorted(TABLE))
def test_each_name_of_the_table_exists(module: str) -> None:
    found = importlib.import_module(module)
    for name in TABLE[module]:
        assert getattr(found, name) is not None, name
    assert set(TABLE[module]) <= set(dir(found))


@pytest.mark.parametrize("module", sorted(FREQUENT))
def test_the_names_that_scripts_import_exist(module: str) -> None:
    found = importlib.import_module(module)
    missing = [name for name in FREQUENT[module].split() if not hasattr(found, name)]
    assert not missing


def test_a_name_without_a_counterpart_says_what_to_use_when_it_is_called() -> None:
    from utils.torch_utils import load_classifier

    with pytest.raises(NotImplementedError, match=r"YOLOv5-LSKA has no load_classifier: build the second"):
        load_classifier(name="resnet101", n=2)


def test_a_name_that_no_version_had_is_an_ordinary_import_error() -> None:
    with pytest.raises(ImportError, match="cannot import name 'TracedModel'"):
        from utils.torch_utils import TracedModel  # noqa: F401


def test_lists_of_imports_load_nothing_heavy() -> None:
    code = """
import sys
import utils.general, utils.torch_utils, utils.plots, utils.datasets, utils.dataloaders, utils.metrics
from utils.general import LOGGER, check_file, check_img_size, colorstr, cv2, increment_path
print([name for name in ("torch", "matplotlib", "pandas", "torchvision") if name in sys.modules])
"""
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert output.stdout == "[]\n"


def test_python_s_own_package_test_is_still_found() -> None:
    code = "import test, test.support; assert callable(test.test)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_other_programs_recognise_the_classes_by_module_and_name() -> None:
    from models.common import AutoShape, Conv, DetectMultiBackend
    from models.yolo import Detect, DetectionModel

    for found, module in (
        (AutoShape, "models.common"),
        (DetectMultiBackend, "models.common"),
        (Conv, "models.common"),
        (Detect, "models.yolo"),
        (DetectionModel, "models.yolo"),
    ):
        assert found.__module__ == module
        assert getattr(importlib.import_module(module), found.__name__) is found
