"""The time that native code may take beyond what its size explains; all calls of a command share it.

A model may hold a loop that never ends, or a product that takes minutes. Each call into ONNX Runtime has seconds that
its size explains, which cost nothing; what calls take beyond them comes out of one budget, so that many slow calls end
as one does. Seconds are of CPU, or by the clock where that are fewer (several threads): a busy machine is no fault.

A run is asked to stop, which ONNX Runtime heeds between two nodes. A call that does not stop, because it is inside of
one node, can only end with the process: `when_stuck` says how.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SHARED = 8.0  # seconds that the calls of a command may take together, beyond what their sizes explain
GRACE = 3.0  # seconds from the request to stop until a call counts as stuck
LOOK = 0.1  # seconds from one look at the calls to the next


@dataclass
class Call:
    """A call that goes on. usual: seconds that its size explains; over: whether it was asked to stop."""

    usual: float
    stop: Callable[[], object]
    over: bool = False
    cpu: float = field(default_factory=time.process_time)
    clock: float = field(default_factory=time.monotonic)

    def spent(self) -> float:
        """Seconds since it began."""
        return min(time.process_time() - self.cpu, time.monotonic() - self.clock)


class Patience:
    """Watches calls from a thread. left: seconds of the budget that are not used up; stuck: see `renewed`."""

    def __init__(self) -> None:
        self.left = SHARED
        self.stuck: Callable[[], object] | None = None
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)  # a fork has no thread, and maybe a lock that nobody frees

    def _begin(self) -> None:
        self._calls: list[Call] = []
        self._changed = threading.Condition()
        self._watched = False

    @contextlib.contextmanager
    def for_call(self, usual: float, stop: Callable[[], object] = lambda: None) -> Iterator[Call]:
        """Hold the block to `usual` seconds and what is left of the budget; call `stop` when it takes longer."""
        call = Call(usual, stop)
        with self._changed:
            if not self._watched:
                threading.Thread(target=self._watch, daemon=True, name="patience").start()
                self._watched = True
            self._calls.append(call)
            self._changed.notify()
        try:
            yield call
        finally:
            with self._changed:
                self._calls.remove(call)
                self.left = max(0.0, self.left - max(0.0, call.spent() - usual))

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._calls:
                    self._changed.wait()
                late = [call for call in self._calls if call.spent() > call.usual + self.left]
                for call in late:
                    if not call.over:
                        call.over = True
                        call.stop()
                stuck = any(call.spent() > call.usual + self.left + GRACE for call in late)
            if stuck and self.stuck is not None:
                self.stuck()
            time.sleep(LOOK)


patience = Patience()


@contextlib.contextmanager
def renewed(stuck: Callable[[], object] | None = None, seconds: float | None = None) -> Iterator[None]:
    """In the block, calls share a budget of their own: `seconds`, or SHARED.

    stuck: what ends the process when a call does not stop, called from another thread; None lets it go on.
    """
    before = patience.left, patience.stuck
    patience.left, patience.stuck = SHARED if seconds is None else seconds, stuck
    try:
        yield
    finally:
        patience.left, patience.stuck = before
