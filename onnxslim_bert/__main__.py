"""`python -m onnxslim_bert`; with -P, modules that lie in the current folder are not taken for those of this program."""

import sys

try:
    from onnxslim_bert.cli import main
except KeyboardInterrupt:  # Ctrl-C before anything of ours could handle it
    sys.exit(130)

main()
