"""The package `models`, also for projects that have a checkout in a folder and import `yolov5.models`."""

if __name__ != "models":
    import importlib

    importlib.import_module(f"{__name__.rpartition('.')[0]}.utils")  # finds the project
    importlib.import_module("utils.base.prefix").share(__name__, "models")
