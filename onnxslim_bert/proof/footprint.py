"""What a model takes: bytes on disk, memory and time to load, the last two in a process of their own."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.targets.setup import CPU_SETUP, Setup

LAUNCHES = 3  # processes that load a model


@dataclass(frozen=True)
class Footprint:
    """What a model takes on disk, in memory and to load.

    nbytes: the file with its external data.
    load_ms: to open a session, median over the launches.
    peak_bytes: most resident memory of a process that loads the model and runs one batch, the largest of the launches.
    idle_bytes: what of it was in use before (Python, numpy and ONNX Runtime), median over the launches.
    launches: processes started.
    """

    nbytes: int
    load_ms: float
    peak_bytes: int
    idle_bytes: int
    launches: int


def footprint(
    path: Path,
    feeds: Mapping[str, Array],
    *,
    threads: int = 1,
    spinning: bool = False,
    setup: Setup = CPU_SETUP,
) -> Footprint:
    """Load the model and run `feeds` once, in LAUNCHES fresh processes one after the other.

    setup: of the provider. Raises ModelError when a process fails.
    """
    runs = [_launch(path, feeds, threads, spinning, setup) for _ in range(LAUNCHES)]
    return Footprint(
        nbytes=model_bytes(path),
        load_ms=float(np.median([run["load_ms"] for run in runs])),
        peak_bytes=max(int(run["peak_bytes"]) for run in runs),
        idle_bytes=int(np.median([run["idle_bytes"] for run in runs])),
        launches=LAUNCHES,
    )


def _launch(path: Path, feeds: Mapping[str, Array], threads: int, spinning: bool, setup: Setup) -> dict[str, float]:
    packed = io.BytesIO()
    np.savez(packed, **feeds)  # type: ignore[arg-type]
    arguments = [str(path), str(threads), str(int(spinning)), json.dumps(asdict(setup))]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "onnxslim_bert.proof.bench_child", *arguments],
        input=packed.getvalue(),
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        check=False,
    )
    if done.returncode:
        reason = in_words("".join(done.stderr.decode(errors="replace").strip().splitlines()[-1:]))
        raise ModelError(f"{path}: the process that measures memory ended with {done.returncode}: {reason}")
    result: dict[str, float] = json.loads(done.stdout)
    return result
