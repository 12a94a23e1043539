"""Keep libraries from telling their makers that and how they are used."""

from __future__ import annotations

import os


def hush_onnxruntime() -> None:
    """Switch off what ONNX Runtime sends to Microsoft; call it before the first import.

    Seen with 1.32 on Linux, where `disable_telemetry_events` right after the import did not stop it. Who has
    set the variable has chosen already.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
