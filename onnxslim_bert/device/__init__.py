"""Runs on phones and boards: a bundle goes there, results.json comes back, and this machine compares the outputs.

A bundle is a folder: the model, test vectors as ONNX's own tests have them, and manifest.json with a hash of each file.
"""
