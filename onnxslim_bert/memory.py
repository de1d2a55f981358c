"""How much memory this process may have, and what it needs at least.

NumPy's BLAS ends the process when it is given no memory, and ONNX Runtime waits for ever when it is given no thread. So
both are counted before: what would fail is refused in a line that says how much is needed, and who allows how much.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.errors import BoundsError, SlimError, raised_from

with contextlib.suppress(ImportError):  # Windows has no such limits
    import resource

MB = 10**6
ADDRESSES = 420 * MB  # of memory that the libraries ask for (ulimit -v counts that), with room for a small model
DATA = 150 * MB  # of those that are no file's (ulimit -d)
RESIDENT = 200 * MB  # of memory that they use
TIMES = 5  # and both times the bytes of a model: its file, two sessions with packed weights, the result
STACK = 8 * MB  # of a thread, where the system does not say
ARENAS = 128 * MB  # addresses that glibc's malloc asks for, for a thread of its own; for eight on each CPU at most
CGROUPS, OWN_GROUPS, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")
SIGNS = ("Failed to allocate memory", "bad_alloc", "bad allocation", "failed to map segment", "Cannot allocate memory")


@dataclass(frozen=True)
class Limit:
    """A bound on the memory of this process. nbytes: how much. source: who sets it, as a clause. needed: at least."""

    nbytes: int
    source: str
    needed: int


def check_memory() -> None:
    """Raise SlimError when there is less memory than the libraries take that every command imports."""
    for limit in _limits():
        if limit.nbytes < limit.needed:
            raise SlimError(f"at least {limit.needed / MB:.0f} MB of memory are needed, and {_said(limit)}")


def check_threads(threads: int) -> None:
    """Raise SlimError when the limit on addresses leaves no room for so many threads."""
    allowed = _ulimit("RLIMIT_AS")
    needed = ADDRESSES + thread_bytes(threads)
    if threads > 1 and allowed is not None and allowed < needed:
        found = f"ulimit -v allows {allowed / MB:.0f} MB"
        raise SlimError(f"{threads} threads need about {needed / MB:.0f} MB of addresses, and {found}: ask for fewer")


def thread_bytes(threads: int) -> int:
    """Bytes of addresses that `threads` threads may take before they do anything."""
    stack = STACK
    with contextlib.suppress(NameError, ValueError, OSError):
        soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
        stack = STACK if soft == resource.RLIM_INFINITY else soft
    return threads * stack + min(threads, 8 * (os.cpu_count() or 1)) * ARENAS


def give_back() -> None:
    """Give the memory that was freed back to the system; glibc keeps it where blocks in use lie behind it.

    That takes milliseconds, some ten for 200 MB.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)


def is_shortage(error: BaseException) -> bool:
    """Whether the error, or one that it was raised from, is that the system gave no more memory.

    A BoundsError is not: it is a bound of ours, which it names.
    """
    for one in raised_from(error):
        if isinstance(one, BoundsError):
            return False
        if isinstance(one, MemoryError) or (isinstance(one, OSError) and one.errno == errno.ENOMEM):
            return True
        if any(sign in str(one) for sign in SIGNS):
            return True
    return False


def shortage(arguments: Iterable[str]) -> str:
    """What to say when memory ran out: how much is allowed, and how much is needed for the models in `arguments`."""
    nbytes, model = max(((_nbytes(Path(one)), one) for one in arguments if one.endswith(".onnx")), default=(0, ""))
    limits = sorted(_limits(), key=lambda limit: limit.nbytes - limit.needed)
    said = f"out of memory: {_said(limits[0])}" if limits else "out of memory; free some and run it again"
    if not nbytes:
        return said
    needed = (limits[0].needed if limits else RESIDENT) + TIMES * nbytes
    return f"{said}; {model} needs about {needed / MB:.0f} MB"


def _said(limit: Limit) -> str:
    return f"{limit.source} {limit.nbytes / MB:.0f} MB"


def _nbytes(model: Path) -> int:
    """Of the model and the file of weights beside it; 0 where there is none."""
    files = (model, model.with_name(f"{model.name}.data"))
    return sum(file.stat().st_size for file in files if file.is_file())


def _limits() -> Iterator[Limit]:
    """The bounds on this process."""
    for kind, option, needed in (("RLIMIT_AS", "v", ADDRESSES), ("RLIMIT_DATA", "d", DATA)):
        if (allowed := _ulimit(kind)) is not None:
            yield Limit(allowed, f"ulimit -{option} allows", needed)
    if (group := _group()) is not None:
        yield Limit(group, "the control group (cgroup) allows", RESIDENT)
    if (free := _free()) is not None:
        yield Limit(free, "this machine has free", RESIDENT)


def _ulimit(kind: str) -> int | None:
    """Bytes that the limit of this kind, like RLIMIT_AS on addresses, allows; None without such a limit."""
    with contextlib.suppress(NameError, AttributeError, ValueError, OSError):
        soft = resource.getrlimit(getattr(resource, kind))[0]
        return None if soft == resource.RLIM_INFINITY else soft
    return None


def _group() -> int | None:
    """Bytes that the process's control groups allow, those above them included; None without a limit."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds in ("", "memory"):
                place = CGROUPS / kinds / name.lstrip("/")
                for folder in (place, *place.parents):
                    if folder.is_relative_to(CGROUPS / kinds):
                        found += _number_in(folder / ("memory.limit_in_bytes" if kinds else "memory.max"))
    return min(found, default=None)


def _number_in(file: Path) -> list[int]:
    with contextlib.suppress(OSError, ValueError):  # "max": no limit
        number = int(file.read_text())
        return [number] if number < 1 << 60 else []  # version 1 has no word for none
    return []


def _free() -> int | None:
    """Bytes of memory and swap that nobody uses; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        held = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        return 1024 * sum(int(held[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    return None
