"""Checkpoint to bundle. ONNX Runtime's own reports to its maker are off: it reads this when it is imported."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
