"""A fresh process that loads one model, runs it once and prints what that took, as JSON.

    python -m onnxslim_bert.proof.bench_child MODEL THREADS SPINNING SETUP < feeds.npz

SETUP: the fields of a `targets.setup.Setup`, as JSON. Little but numpy and ONNX Runtime is imported, so that the memory
is the runtime's; hence session options of its own.
"""

import io
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

from onnxslim_bert.graph.native_path import native_path
from onnxslim_bert.targets.setup import Setup, attach


def main() -> None:
    """Print {"load_ms", "peak_bytes", "idle_bytes"}."""
    path, threads, spinning, setup = sys.argv[1:]
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    with np.load(io.BytesIO(sys.stdin.buffer.read())) as packed:
        feeds = {name: packed[name] for name in packed.files}
    idle = peak_bytes()
    start = time.perf_counter()
    attach(options, Setup(**json.loads(setup)))
    session = ort.InferenceSession(native_path(Path(path)), options, enable_fallback=0)
    load_ms = 1000 * (time.perf_counter() - start)
    session.run(None, feeds)
    print(json.dumps({"load_ms": load_ms, "peak_bytes": peak_bytes(), "idle_bytes": idle}))


def peak_bytes() -> int:
    """Most memory that this process had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux carries ru_maxrss over from the parent through exec; VmHWM starts anew.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
