"""`python -m onnxslim_bert`."""

from onnxslim_bert.cli import main

main()
