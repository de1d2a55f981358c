"""ONNX Runtime sessions on a model in memory."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.sessions import checked_bytes, load, session_options
from onnxslim_bert.graph.wire import external, place, release
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.parts import above


def model_session(
    model: "Model",
    outputs: Sequence[str] | None = None,
    *,
    inputs: Sequence[str] = (),
    threads: int = 1,
    optimize: bool = True,
    many_runs: bool = False,
) -> ort.InferenceSession:
    """A CPU session on a model in memory; its weights are not serialized.

    Those that lie in the model's file or beside it are mapped by ONNX Runtime, which takes no memory of the process's
    own; the others, which passes made, are handed over as arrays, which it copies.

    outputs: names of the tensors to answer, instead of the model's own outputs.
    inputs: names of constants that become inputs, besides the model's own: every run gives their values.
    optimize: False runs the graph as it is written.
    many_runs: weights are packed for products once, which pays from about six runs of 200 tokens; else at every run.
    """
    skeleton, weights = (model if outputs is None else above(model, outputs)).skeleton()
    if inputs:
        _open_constants(skeleton.graph, inputs)
        weights = {name: values for name, values in weights.items() if name not in inputs}
    if outputs is not None:
        del skeleton.graph.output[:]
        skeleton.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        _keep_needed(skeleton.graph)
        weights = {tensor.name: weights[tensor.name] for tensor in skeleton.graph.initializer if tensor.name in weights}
    return skeleton_session(skeleton, weights, model.path, threads=threads, optimize=optimize, many_runs=many_runs)


def skeleton_session(
    skeleton: onnx.ModelProto,
    weights: Mapping[str, Array],
    path: Path | None,
    *,
    threads: int = 1,
    optimize: bool = True,
    many_runs: bool = False,
) -> ort.InferenceSession:
    """As `model_session`, on what `Model.skeleton` gives of a model that came from `path`.

    Changes `skeleton`: initializers that lie in the file at `path`, or beside it, then say where.
    """
    if path is not None and path.is_file():
        checked_bytes(path)
    options = session_options(threads)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "0" if many_runs else "1")
    nbytes = sum(array.nbytes for array in weights.values())
    places = {name: found for name, values in weights.items() if (found := place(values)) is not None}
    folder = _common_folder(file for file, _ in places.values())
    given = dict(weights)
    if folder is not None and str(folder).isprintable():  # ONNX Runtime takes text, and names may be any bytes
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
        given = _left_after_mapping(skeleton.graph, weights, places, folder)
    if given:
        values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in given.values()]
        options.add_external_initializers(list(given), values)
    session = load(skeleton.SerializeToString(), options, external=nbytes, nodes=len(skeleton.graph.node))
    release(weights.values())  # the session has copied or mapped them
    return session


def _common_folder(files: Iterable[Path]) -> Path | None:
    """The folder that holds them all, which need not be the model's: in the hub's cache models are links."""
    with contextlib.suppress(ValueError):  # none, or on several drives
        return Path(os.path.commonpath([file.parent for file in files]))
    return None


def _left_after_mapping(
    graph: onnx.GraphProto, weights: Mapping[str, Array], places: Mapping[str, tuple[Path, int]], folder: Path
) -> dict[str, Array]:
    """The weights that lie in no file, `places` is where the others do; in `graph` these then say so, from `folder`."""
    left = dict(weights)
    for tensor in graph.initializer:
        if (found := places.get(tensor.name)) is None:
            continue
        location = str(found[0].relative_to(folder))
        if location.isprintable():
            nbytes = left.pop(tensor.name).nbytes
            del tensor.external_data[:]
            tensor.external_data.extend(external(location, found[1], nbytes))
    return left


def _keep_needed(graph: onnx.GraphProto) -> None:
    """Drop the nodes and the initializers that no output needs, which ONNX Runtime would run all the same."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):  # in execution order, so that readers come before what they read
        if needed.intersection(node.output):
            kept.append(node)
            needed |= _read_by(node)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def _read_by(node: onnx.NodeProto) -> set[str]:
    subgraphs = [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]
    return {*node.input}.union(*(_read_by(inner) for graph in subgraphs for inner in graph.node))


def _open_constants(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Let the initializers called `names` be inputs of the graph."""
    opened = {tensor.name: tensor for tensor in graph.initializer if tensor.name in names}
    for name in names:
        tensor = opened[name]
        graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        graph.initializer.remove(tensor)
