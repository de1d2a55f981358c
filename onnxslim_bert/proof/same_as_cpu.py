"""Whether a target computes what the CPU computes from the same file: a provider may take a node and do it wrongly."""

from pathlib import Path

import numpy as np

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError, ModelError, ProviderError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.proof.workload import Workload, same_feeds
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.table import CPU
from onnxslim_bert.targets.target import Target

MOST = 0.3  # |difference| / |answers|: products in bfloat16 and int8 kernels of others are off by a few percent


def check_same_as_cpu(path: Path, target: Target, places: Places, workload: Workload, working: Working) -> None:
    """Raise ProviderError when `target` answers random ids otherwise than the CPU does, by more than MOST.

    Files that take no ids are not asked.
    """
    sessions = [(path, places.open(one, path, threads=working.threads).session) for one in (CPU, target)]
    try:
        fed = same_feeds(sessions, workload, None, working, 1)
    except (DataError, ModelError):
        return
    ours, theirs = (
        np.concatenate([output.astype(np.float64).ravel() for output in run(session, feeds[0])])
        for (_, session), feeds in zip(sessions, fed, strict=True)
    )
    off = float(np.linalg.norm(theirs - ours) / (np.linalg.norm(ours) or 1.0))
    if not off <= MOST:
        raise ProviderError(
            f"{path.name}: {target.name} takes every node, but answers otherwise than the CPU from the same file, by "
            f"{off:.0%}: leave out the step that it computes wrongly, `quantize-embedding` for instance"
        )
