"""Ctrl-C and SIGTERM end a command wherever they fall.

Python drops what is raised in a destructor or in the callback of a weak reference (sys.unraisablehook), and importing a
module runs such callbacks. A signal whose exception was dropped there is sent again. Native code that is
interrupted, while it is imported for instance, raises an exception of its own: the signal is what ended the command.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

AGAIN_S = 0.05  # after which the callback is over
TERMINATED = 143
DEFAULT = signal.default_int_handler


class Terminated(SystemExit):
    """SIGTERM came."""


DROPPED = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the block, SIGTERM unwinds the stack as Ctrl-C does, so that temporary files go, and neither is lost."""
    came: list[BaseException] = []

    def end(number: int, _frame: object) -> None:
        came.append(Terminated(TERMINATED) if number == signal.SIGTERM else KeyboardInterrupt())
        raise came[-1]

    numbers = [signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is DEFAULT else [])]
    before, hook = {number: signal.signal(number, end) for number in numbers}, sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        number = DROPPED.get(dropped.exc_type)
        if number is None:
            hook(dropped)
        else:
            threading.Timer(AGAIN_S, _send, [number]).start()

    sys.unraisablehook = again
    try:
        yield
    except Exception:
        if came:
            raise came[-1] from None
        raise
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _send(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # wakes it where it waits
    else:
        signal.raise_signal(number)
