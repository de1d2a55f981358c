"""Bounds on the memory and the time of one run of a model: a few nodes can ask for gigabytes, or never end.

What a run may take grows with the file and with what is fed, so that a large encoder on large batches is far inside.
"""

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import BoundsError
from onnxslim_bert.graph.patience import patience
from onnxslim_bert.memory import is_shortage

with contextlib.suppress(ImportError):  # Windows has no such limits
    import resource

LOADED = 1 << 30  # bytes that any load may take
MEMORY = 1 << 29  # bytes that any run may take; a session keeps them, and a command has two or three of those
TIMES = 8  # and both times the bytes of the model's file: weights unfold, and are packed for products
A_PAIR = 512  # and bytes for two tokens of one row: scores of 16 heads, in eight copies
A_TOKEN = 1024 * A_PAIR  # and bytes for one token: states of width 4096, in 32 copies
A_RUN = 0.1  # seconds that any run may take, where milliseconds are usual
A_VALUE = 1e-3  # and seconds for each value that is fed
READ = 4e8  # and for each value a second for so many bytes of the model's file, a hundred times what products take
A_LOAD = 1.0  # seconds that any load may take
LOADED_A_SECOND = 1e8  # and bytes of the file for which it may take a second more
A_NODE, A_LOADED_NODE = 2e-3, 5e-4  # seconds for each node that is walked through, and that ONNX Runtime loads
PAGES, MAPPED, DATA = Path("/proc/self/statm"), 0, 5  # pages of this process: all, and those that it may write
_one_at_a_time = threading.Lock()


def run_within(
    session: ort.InferenceSession,
    outputs: Sequence[str] | None,
    feeds: Mapping[str, Array],
    nbytes: int,
    *,
    held: bool = False,
) -> list[Any]:
    """`session.run(outputs, feeds)`; raises BoundsError when it takes more memory or time than its size explains.

    nbytes: of the model's file. held: return what ONNX Runtime holds, `OrtValue`s, without a copy. Example: 40 MB and 8
    rows of 128 tokens may take 1.5 GB more than the process has, and 104 s. What a run takes beyond such time is taken
    from what all share (`patience.py`).
    """
    largest = max(feeds.values(), key=np.size, default=np.zeros(0))
    length = largest.shape[-1] if largest.ndim else 1
    memory = MEMORY + TIMES * nbytes + largest.size * (A_PAIR * length + A_TOKEN)
    usual = A_RUN + largest.size * (A_VALUE + nbytes / READ)
    options = ort.RunOptions()
    options.log_severity_level = 4
    shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in feeds.items())
    with patience.for_call(usual, lambda: setattr(options, "terminate", True)) as call:
        try:
            with memory_within(memory, f"the model takes more than {memory / 1e9:.1f} GB of memory on {shapes}"):
                if not held:
                    return [*session.run(outputs, dict(feeds), options)]
                given = {name: ort.OrtValue.ortvalue_from_numpy(values) for name, values in feeds.items()}
                return [*session.run_with_ort_values(outputs, given, options)]
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            if call.over:
                spent = f"{call.spent():.0f} s on {shapes}, where {usual:.1f} s are usual"
                raise BoundsError(f"the model runs longer than {spent}; it may never end") from error
            raise


@contextlib.contextmanager
def load_within(nbytes: float, seconds: float = 0.0, who: str = "the model") -> Iterator[None]:
    """While open, a model of `nbytes` may be read, or its constants folded, in the memory that this explains.

    seconds: that its nodes explain. Time beyond what both explain is taken from what all calls share. who: what
    BoundsError says that takes too much.
    """
    memory = LOADED + TIMES * nbytes
    usual = A_LOAD + nbytes / LOADED_A_SECOND + seconds
    with patience.for_call(usual), memory_within(memory, f"{who} takes more than {memory / 1e9:.1f} GB to load"):
        yield


@contextlib.contextmanager
def memory_within(nbytes: float, said: str) -> Iterator[None]:
    """While open, this process may take `nbytes` of memory more, where the system can hold it to that (Linux).

    One at a time: where another thread holds such a limit, that one counts. Raises BoundsError, `said` and why, when it
    runs out; not where a limit of the system leaves less than `nbytes` anyway, and is to be named (`memory.py`).
    """
    if not PAGES.is_file() or not _one_at_a_time.acquire(blocking=False):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    pages = PAGES.read_text().split()
    mapped, taken = (int(pages[place]) * resource.getpagesize() for place in (MAPPED, DATA))
    limits = [limit for limit in before if limit != resource.RLIM_INFINITY]
    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    ours = min(limits, default=math.inf) > taken + nbytes
    ours &= addresses == resource.RLIM_INFINITY or addresses > mapped + nbytes
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (min(math.ceil(taken + nbytes), *limits, 1 << 62), before[1]))
        yield
    except Exception as error:
        if ours and is_shortage(error):
            raise BoundsError(f"{said}, and its size explains no more") from error
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        _one_at_a_time.release()
