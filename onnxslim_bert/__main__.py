"""`python -m onnxslim_bert`; `python -P -m` takes no module from the current folder for one of this program."""

import sys

try:
    from onnxslim_bert.cli import main
except KeyboardInterrupt:  # Ctrl-C before anything of ours could handle it
    sys.exit(130)

main()
