"""A process with everything that it started: what it uses, and its end."""

import contextlib
import os
import signal

import psutil


class ProcessTree:
    """peak_bytes: most memory resident at once, cpu_seconds: used, both of all processes as far as they were seen."""

    def __init__(self, pid: int) -> None:
        self._seen = {pid: psutil.Process(pid)}
        self._root = pid
        self.peak_bytes = 0
        self.cpu_seconds = 0.0

    def look(self) -> int:
        """Bytes resident now; what several processes share counts for each."""
        with contextlib.suppress(psutil.Error):
            children = self._seen[self._root].children(recursive=True)
            self._seen = {self._root: self._seen[self._root]} | {child.pid: child for child in children}
        resident, cpu = 0, 0.0
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error), process.oneshot():
                resident += process.memory_info().rss
                cpu += sum(process.cpu_times()[:4])  # user and system, its own and of children that ended
        self.peak_bytes = max(self.peak_bytes, resident)
        self.cpu_seconds = max(self.cpu_seconds, cpu)
        return resident

    def kill(self) -> None:
        """End all of it, what the root has left behind included."""
        self.look()
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self._root, signal.SIGKILL)  # the root leads a group
        for process in self._seen.values():
            with contextlib.suppress(psutil.Error):
                process.kill()
