"""Let Ctrl-C and SIGTERM end a command whatever it is doing at that moment.

A signal arrives as an exception, and there are two places where that would be lost. Python drops exceptions in
destructors and in callbacks of weak references, such as run while a module is imported (sys.unraisablehook): there the
signal is sent again, a moment later. Native code that is interrupted may raise an exception of its own in its place:
then the signal's exception is raised instead of that.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

AGAIN_S = 0.05  # seconds until a dropped signal is sent again; the callback that dropped it is over by then
TERMINATED = 143
DEFAULT = signal.default_int_handler


class Terminated(SystemExit):
    """The exception that SIGTERM raises."""


DROPPED = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the block, SIGTERM raises an exception as Ctrl-C does, so that temporary files are removed; none is lost."""
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
