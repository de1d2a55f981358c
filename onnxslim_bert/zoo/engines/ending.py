"""How a task's process ended, judged from what is left of it."""

import signal
from collections.abc import Mapping
from typing import Any, NamedTuple

from onnxslim_bert.zoo.engines.task import Status

DUMP = "Fatal Python error:"  # faulthandler's, after everything that the process said itself


class Ending(NamedTuple):
    """status, message and exit_code as in `Ended`."""

    status: Status
    message: str = ""
    exit_code: int = 0


def ending(stopped: Ending | None, told: Mapping[str, Any], returncode: int, committed: bool, output: str) -> Ending:
    """Judge how a task's process ended.

    stopped: why it was stopped, None when it ended by itself. told: what the process said of its end, {} for nothing.
    returncode: of the process. committed: whether its result is in the storage. output: what it wrote last.
    """
    if committed:
        return Ending("done")
    if stopped:
        return stopped
    if told and told["status"] != "done":
        return Ending(told["status"], told["message"], told["exit_code"])
    last = next((line.strip() for line in reversed(output.partition(DUMP)[0].splitlines()) if line.strip()), "")
    return Ending("crashed", _cause(returncode) + (f"; it last said: {last[:200]}" if last else ""), 1)


def _cause(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode} and without a result"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown here"
    hint = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
    return f"killed by signal {-returncode} ({name}){hint}"
