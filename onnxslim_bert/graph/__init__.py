"""An ONNX file as a graph: wire format, files, probing by running, edits, sessions; knows no transformer."""
