"""ONNX Runtime sessions on a model in memory."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort

from onnxslim_bert.graph.sessions import load, session_options
from onnxslim_bert.graph.wire import release
from onnxslim_bert.model.onnx_model import Model


def model_session(
    model: "Model",
    outputs: Sequence[str] | None = None,
    *,
    inputs: Sequence[str] = (),
    threads: int = 1,
    optimize: bool = True,
    many_runs: bool = False,
) -> ort.InferenceSession:
    """A CPU session on a model in memory; its weights are handed over as arrays, not serialized.

    outputs: names of the tensors to answer, instead of the model's own outputs.
    inputs: names of constants that become inputs, besides the model's own: every run gives their values.
    optimize: False runs the graph as it is written.
    many_runs: weights are packed for products once, which pays from about six runs of 200 tokens; else at every run.
    """
    skeleton, weights = model.skeleton()
    if inputs:
        _open_constants(skeleton.graph, inputs)
        weights = {name: values for name, values in weights.items() if name not in inputs}
    if outputs is not None:
        del skeleton.graph.output[:]
        skeleton.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        _keep_needed(skeleton.graph)
        weights = {tensor.name: weights[tensor.name] for tensor in skeleton.graph.initializer if tensor.name in weights}
    options = session_options(threads)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "0" if many_runs else "1")
    values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in weights.values()]
    if weights:
        options.add_external_initializers(list(weights), values)
    session = load(skeleton.SerializeToString(), options, external=sum(array.nbytes for array in weights.values()))
    release(weights.values())  # the session has copied them
    return session


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
