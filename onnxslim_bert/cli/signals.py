"""Let Ctrl-C and SIGTERM end a command whatever it is doing at that moment.

A signal arrives as an exception, and there are two places where that would be lost. Python drops exceptions in
destructors and in callbacks of weak references, such as run while a module is imported (sys.unraisablehook): there the
signal is sent again, a moment later. Native code that is interrupted may print the exception (sys.excepthook) and raise
one of its own in its place: then the signal's exception is raised instead of that, and nothing is printed. And a native
module that is just being loaded may end the process at any exception: there the signal waits.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any

from onnxslim_bert.graph.claims import remove_held
from onnxslim_bert.graph.held_signals import no_signals

AGAIN_S = 0.05  # seconds until a signal is sent again; the callback that dropped it is over by then
LOADING = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)
TERMINATED = 143
UNHANDLED = (signal.default_int_handler, signal.SIG_DFL)  # of Ctrl-C


class Terminated(BaseException):
    """The exception that SIGTERM raises. No SystemExit, on which native code that prints it would end the process."""


DROPPED = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the block, SIGTERM raises an exception as Ctrl-C does, so that temporary files are removed; none is lost."""
    came: list[BaseException] = []

    def end(number: int, frame: FrameType | None) -> None:
        if _loads_native(frame):
            _send_again(signal.Signals(number))
            return
        came.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise came[-1]

    numbers = [signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) in UNHANDLED else [])]
    before, hook, prints = {n: signal.signal(n, end) for n in numbers}, sys.unraisablehook, sys.excepthook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        number = DROPPED.get(dropped.exc_type)
        if number is None:
            hook(dropped)
        else:
            _send_again(number)

    def printed(kind: type[BaseException], *what: Any) -> None:
        if kind not in DROPPED:
            prints(kind, *what)

    sys.unraisablehook, sys.excepthook = again, printed
    try:
        yield
    except Exception:
        if came:
            raise came[-1] from None
        raise
    finally:
        if came:  # a second one may have come while the first was on its way
            with no_signals():
                remove_held()
        sys.unraisablehook, sys.excepthook = hook, prints
        for number, handler in before.items():
            signal.signal(number, handler)


def _loads_native(frame: FrameType | None) -> bool:
    """Whether a native module is being loaded in `frame` or one that called it."""
    while frame is not None and frame.f_code not in LOADING:
        frame = frame.f_back
    return frame is not None


def _send_again(number: signal.Signals) -> None:
    threading.Timer(AGAIN_S, _send, [number]).start()


def _send(number: signal.Signals) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # wakes it where it waits
    else:
        signal.raise_signal(number)
