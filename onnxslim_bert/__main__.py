"""What the scripts run, and `python -m onnxslim_bert`.

`python -P -m` takes no module from the current folder for one of this program.
"""

# built in; `signal` takes milliseconds to import, in which Ctrl-C would print where it was
import _signal  # type: ignore[import-not-found]
import os
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it without a word before it can answer, and after it has.

    Python's own handler would raise an exception, which a destructor or a callback at that moment drops.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # not where it is ignored
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    from onnxslim_bert.cli import main as run

    run()


def leave_current_folder() -> None:
    """Take no more modules from the current folder, where `python -m` looks first, unless this program lies there.

    Those that Python itself imports before this cannot be kept from it: `-P` can.
    """
    here = os.getcwd()  # noqa: PTH109  (pathlib is a module that may lie there, too)
    if sys.path and sys.path[0] in ("", here) and here != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH120
        del sys.path[0]


if __name__ == "__main__":
    leave_current_folder()
    main()
