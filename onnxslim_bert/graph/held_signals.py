"""Signals wait while a step is taken that must be whole: a folder is made and known as ours, files get their names."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def no_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come in the block are handled at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def again() -> None:
        for late in came:
            signal.raise_signal(late)

    with contextlib.ExitStack() as stack:  # each is restored even where one more comes meanwhile
        stack.callback(again)
        for number, handler in handlers.items():
            if handler is not None:  # None: not Python's
                stack.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, _: came.append(number))
        yield
