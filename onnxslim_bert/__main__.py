"""What the scripts run, and `python -m onnxslim_bert`.

`python -P -m` takes no module from the current folder for one of this program.
"""

import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it without a word before it can answer, and after it has."""
    try:
        from onnxslim_bert.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # destructors may take their time


if __name__ == "__main__":
    main()
