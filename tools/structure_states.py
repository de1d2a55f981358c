"""A classifier cut to what its encoder gives: one vector a token, whose mean is an embedding of the sentence."""

from pathlib import Path

import numpy as np
from structure_trial import canonical

from onnxslim_bert.errors import ModelError
from onnxslim_bert.model.selection import find_selection


def write_states(path: Path, output: Path) -> None:
    """Write the model at `path` to `output` with the last hidden state [batch, seq, hidden] as its only output.

    Raises ModelError when it was not found.
    """
    model = canonical(path)
    found = find_selection(model, model.encoder.layers[-1])
    if isinstance(found, str):
        raise ModelError(f"{path}: {found}; needed a classifier on the first token")
    state, _ = found
    state.dtype, state.shape = np.dtype(np.float32), ["batch", "seq", model.encoder.hidden]
    model.graph.outputs = [state]
    model.changed()
    model.save(output)
