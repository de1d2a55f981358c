"""A toolkit that makes BERT-family ONNX models small and fast without retraining, and proves it."""

__version__ = "0.1.0"
