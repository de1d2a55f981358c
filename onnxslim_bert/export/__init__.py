"""ONNX from Hugging Face folders, by PyTorch."""
