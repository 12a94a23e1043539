"""`python -m yolov5_lska`: the command `yolov5-lska`, also under torchrun."""

from yolov5_lska.cli import main

if __name__ == "__main__":
    main()
