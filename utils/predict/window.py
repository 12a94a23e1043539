"""Show pictures while they are made, where OpenCV has windows."""

from __future__ import annotations

import cv2
import numpy as np

from utils.base.log import LOG


class Window:
    """One window per source; `q` in any of them asks to stop."""

    def __init__(self) -> None:
        self._works = True
        self._opened = False

    def show(self, name: str, image: np.ndarray) -> bool:
        """Show a picture; returns False once the user has pressed `q`."""
        if not self._works:
            return True
        try:
            cv2.imshow(name, image)
            self._opened = True
            return cv2.waitKey(1) & 0xFF != ord("q")
        except cv2.error:
            LOG.warning("--view-img: this OpenCV has no windows (opencv-python-headless?); going on without")
            self._works = False
            return True

    def close(self) -> None:
        """Close the windows."""
        if self._opened:
            cv2.destroyAllWindows()
