"""The roles of a model's inputs (token ids, mask, token types, positions), for the rows that it is to be fed."""

from pathlib import Path

import onnxruntime as ort

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import DataError
from onnxslim_bert.model.input_roles import graph_roles, roles_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.role_names import InputRole, Roles, role_of
from onnxslim_bert.model.session import model_session


def roles_for(
    model: Path | Model,
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    session: ort.InferenceSession | None = None,
    *,
    threads: int = 1,
) -> Roles:
    """The role of each input of `model`, to be fed with rows of `dataset` (`roles_of`).

    A model in memory that was read from a file has the roles of that file, if it has all inputs of the model.
    session: one that is open on the model; else one of `threads` may be opened.
    Raises DataError as `roles_of` does, but not for ready inputs: these have the roles that their names say, if any.
    """
    named = tokenizer.inputs if tokenizer is not None else None
    try:
        if isinstance(model, Path):
            return roles_of(model, named, session, threads=threads)
        if model.path is not None and model.path.is_file():
            found = roles_of(model.path, named, threads=threads)
            if all(tensor.name in found for tensor in model.graph.inputs):
                return {tensor.name: found[tensor.name] for tensor in model.graph.inputs}
        return graph_roles(model.graph, lambda: session or model_session(model, threads=threads), named)
    except DataError:
        if dataset.feeds is None:
            raise
        return {name: InputRole(role) for name in dataset.feeds if (role := role_of(name)) is not None}
