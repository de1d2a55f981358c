"""A toolkit that makes BERT-family ONNX models small and fast without retraining, and proves it."""

import os

__version__ = "0.1.0"

# ONNX Runtime keeps a device id in the user's cache and sends events about models, unless told before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
