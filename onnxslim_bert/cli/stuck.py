"""End a command that waits for native code which does not come back.

A run is asked to stop, but ONNX Runtime heeds that between two nodes only, and Python handles no exception while the
main thread is inside of one. So the thread that watches (`graph/patience.py`) removes what is temporary, says so in a
line, and ends the process. It says so where the user looks: while a file is opened, what is written to stderr is caught
(`native_output.py`).
"""

import contextlib
import os
from collections.abc import Iterator

from onnxslim_bert.errors import SlimError
from onnxslim_bert.graph.claims import remove_held
from onnxslim_bert.graph.patience import GRACE, SHARED, renewed

LINE = (
    f"onnxslim: ONNX Runtime is inside of one node, more than {SHARED + GRACE:.0f} s beyond what the model's size "
    "explains, and cannot be stopped; nothing was written: look for a node that makes very large tensors\n"
)


@contextlib.contextmanager
def ended_when_stuck() -> Iterator[None]:
    """In the block, calls of native code share one budget of time; one that does not stop is one line, exit code 2."""
    with contextlib.ExitStack() as stack:
        stderr = 2
        with contextlib.suppress(OSError):  # closed: nobody reads it
            stderr = os.dup(2)
            stack.callback(os.close, stderr)
        stack.enter_context(renewed(lambda: end(stderr)))
        yield


def end(stderr: int) -> None:
    """Write the line to the descriptor `stderr` and end the process, whatever its main thread does."""
    with contextlib.suppress(BaseException):
        remove_held()
    with contextlib.suppress(OSError):
        os.write(stderr, LINE.encode())
    os._exit(SlimError.exit_code)
