"""Open a model that nothing has run yet in a process of its own: a graph can crash ONNX Runtime, and all with it."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import CrashError, ModelError, SlimError
from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.patience import patience, renewed
from onnxslim_bert.graph.sessions import open_session, run
from onnxslim_bert.graph.survival import survived
from onnxslim_bert.graph.wire import data_file

REFUSED, FINITE, BROKEN = 3, "finite", "broken"
SECONDS = 300.0  # by the clock, that opening and running a file may take; it ends itself long before (`patience.py`)
PACE = 1e6  # bytes of the file that may take a second more


def answers_apart(path: Path, feeds: Mapping[str, Array]) -> bool:
    """Run the model at `path` on the CPU, in a process of its own, and say whether its answers are finite.

    feeds: the model's inputs by name; when empty, the model is opened and not run. Raises ModelError when ONNX Runtime
    refuses the file, CrashError when the process crashes on it, and ModelError when it takes more time than SECONDS and
    a second for every PACE bytes of the file, or more memory than its size explains (`bounds.py`).
    """
    with scratch() as folder:
        row = folder / "row.npz"
        np.savez(row, **feeds)  # type: ignore[arg-type]
        files = [file for file in (path, data_file(path)) if file.is_file()]
        seconds = SECONDS + sum(file.stat().st_size for file in files) / PACE
        try:
            done = ask([str(path), str(row), str(patience.left)], seconds)
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"{path}: opening and running it takes longer than {seconds:.0f} s; nothing was written"
            ) from error
    if done.returncode == REFUSED:
        raise ModelError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise CrashError(f"{path}: ONNX Runtime ends with it (exit code {done.returncode}); nothing was written")
    survived(path)
    return done.stdout.strip() == FINITE


def in_new_python(arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Call `main` with `arguments` in a new process; raises TimeoutExpired after so many seconds by the clock."""
    reads, writes = os.pipe()  # its stdin, which closes when this process ends, however it ends
    try:
        return subprocess.run(
            [sys.executable, "-P", "-m", "onnxslim_bert.graph.apart", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            check=False,
            timeout=seconds,
            stdin=reads,
        )
    finally:
        os.close(reads)
        os.close(writes)


# tools/forked.py asks a fork, which is ready
ask: Callable[[Sequence[str], float], subprocess.CompletedProcess[str]] = in_new_python


def main(path: Path, row: Path, seconds: float) -> int:
    """What the process does: it prints whether the answers are finite. It ends as soon as stdin closes.

    seconds: what is left of the time that the calls of the command share.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    survived(path)  # or not, and then this process is what ends
    try:
        with renewed(lambda: _stuck(path), seconds):
            session = open_session(path)
            feeds = dict(np.load(row))
            answers = run(session, feeds) if feeds else []
    except SlimError as error:
        print(error, file=sys.stderr)
        return REFUSED
    finite = all(np.isfinite(values).all() for values in answers if values.dtype.kind == "f")
    print(FINITE if finite else BROKEN)
    return 0


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _stuck(path: Path) -> None:
    print(f"{path}: ONNX Runtime stays inside of one node; nothing was written", file=sys.stderr, flush=True)
    os._exit(REFUSED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
