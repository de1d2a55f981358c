"""The graph that ONNX Runtime shows to a provider: the file's, optimized, with all types and shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from onnxslim_bert.graph.claims import scratch
from onnxslim_bert.graph.native_path import native_name
from onnxslim_bert.graph.sessions import load, session_options
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.halves import has_halves, narrow, widen
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.targets.input_shapes import free_dimensions

DTYPES = {"float": "float32", "double": "float64"}  # where ONNX Runtime's names are not numpy's


@dataclass(frozen=True)
class Seen:
    """The graph that ONNX Runtime shows to a provider; tensors have types and shapes, an open dimension is None.

    external: names of the weights that lie in another file than the graph.
    """

    graph: gs.Graph
    external: frozenset[str] = frozenset()


def seen_by_provider(path: Path, shape: tuple[int, int] | None = None) -> Seen:
    """The file at `path` after ONNX Runtime's basic optimizations, which come before partitioning.

    They matter: they fold shapes, write dense layers on three dimensions as Reshape, Gemm, Reshape, and put norms
    together (from opset 17 on). A CPU session writes the graph, since no provider has a part in them
    (https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/graph_transformer_utils.cc).

    shape: (batch, tokens) in place of the open dimensions of the inputs.
    Raises ModelError when ONNX Runtime cannot load the file, or an open dimension has no name of its own.
    """
    original, _ = read_skeleton(path)
    weights = original.graph.initializer
    external = frozenset(w.name for w in weights if w.data_location == onnx.TensorProto.EXTERNAL)
    source = Model.load(path)
    is_half = has_halves(source)
    with scratch() as folder:
        asked, optimized = path, Path(folder, "optimized.onnx")
        if is_half:
            widen(source)
        if is_half or external:
            asked = Path(folder, "asked.onnx")
            source.save(asked)
        _write_optimized(asked, optimized, free_dimensions(path, shape) if shape else {})
        model = Model.from_proto(*read_skeleton(optimized), path)
        _give_types(model)
    if is_half:
        narrow(model.graph)
    return Seen(model.graph, external)


def _write_optimized(path: Path, optimized: Path, dimensions: Mapping[str, int]) -> None:
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = native_name(optimized)
    for name, size in dimensions.items():
        options.add_free_dimension_override_by_name(name, size)
    load(path, options)


def _give_types(model: Model) -> None:
    """Write on every tensor the type and shape that ONNX Runtime infers, for its own operators too."""
    written = {t.name: t for node in model.graph.nodes for t in node.outputs if not t.is_empty()}
    session = model_session(model, list(written))
    scalars = _scalars(model)
    for value in session.get_outputs():
        kind = str(value.type).removeprefix("tensor(").removesuffix(")")
        is_known = value.shape or value.name in scalars  # no shape at all looks like a scalar's
        written[value.name].dtype = _dtype(DTYPES.get(kind, kind))
        written[value.name].shape = [_size(size) for size in value.shape] if is_known else None
    for tensor in model.graph.inputs:
        tensor.shape = [_size(size) for size in tensor.shape or ()]


def _scalars(model: Model) -> set[str]:
    """The tensors that ONNX's own inference finds to be one number."""
    inferred = onnx.shape_inference.infer_shapes(model.skeleton()[0], data_prop=True).graph
    found = {value.name: value.type.tensor_type for value in [*inferred.value_info, *inferred.output]}
    return {name for name, kind in found.items() if kind.HasField("shape") and not kind.shape.dim}


def _size(size: int | str | None) -> int | None:
    return size if isinstance(size, int) else None


def _dtype(name: str) -> np.dtype | None:
    """The numpy type of that name, None for those that numpy does not have."""
    try:
        return np.dtype(name)
    except TypeError:
        return None
