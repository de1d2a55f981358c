"""Cut channels out of the residual stream; nothing is decided here."""

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, PassError, one_line
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import constant, producer, read_by
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.rewriting.pruning.sites import with_inner
from onnxslim_bert.rewriting.pruning.stream import Cut, Stream
from onnxslim_bert.rewriting.trials import Trials

FEW = 7  # tokens of the row that shows shapes


def every_value(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What each tensor of the graph holds when `model` runs on `feeds` as it is written; constants are left out."""
    names = [tensor.name for node in model.graph.nodes for tensor in node.outputs if not tensor.is_empty()]
    session = model_session(model, names, optimize=False)
    read = {tensor.name for tensor in session.get_inputs()}
    given = {name: values for name, values in feeds.items() if name in read}
    return dict(feeds) | dict(zip(names, run(session, given), strict=True))


def short_row(model: Model, trials: Trials) -> dict[str, Array]:
    """One calibration row of few tokens; more where the model's shapes are fixed."""
    feeds = dict(next(iter(trials.fitting)).feeds)
    shapes: list[list[object]] = [list(tensor.shape or [0]) for tensor in model.graph.inputs]
    tokens = FEW if model.encoder.hidden != FEW else FEW - 1
    if not any(isinstance(shape[0], int) for shape in shapes):
        feeds = {name: values[:1] for name, values in feeds.items()}
    if not any(len(shape) != 2 or isinstance(shape[1], int) for shape in shapes):
        feeds = {name: values[:, :tokens] for name, values in feeds.items()}
    return feeds


def keep_channels(model: Model, stream: Stream, kept: Array) -> None:
    """Keep the channels `kept` [width] of the stream, in this order, in everything along it."""
    nodes = {node.name: node for node in model.graph.nodes}
    build = Builder(model.graph, "")
    uses: dict[str, set[tuple[str, int]]] = {}
    for node in with_inner(model.graph.nodes):
        for position, tensor in enumerate(node.inputs):
            uses.setdefault(tensor.name, set()).add((node.name, position))
    along: dict[tuple[str, int], list[Cut]] = {}
    for cut in stream.cuts:
        along.setdefault((nodes[cut.node].inputs[cut.position].name, cut.axis), []).append(cut)
    for (name, axis), cuts in along.items():
        if uses[name] == {(cut.node, cut.position) for cut in cuts}:
            model.replace(name, np.ascontiguousarray(model.array(name).take(kept, axis)))
            continue
        for node, position in ((nodes[cut.node], cut.position) for cut in cuts):
            node.inputs[position] = build.constant(name, node.inputs[position].values.take(kept, axis))
    for name in stream.sized:
        _resize(build, nodes[name], stream, len(kept))
    model.changed()


def _resize(build: Builder, node: gs.Node, stream: Stream, width: int) -> None:
    """Let a node that writes the stream in a given shape write it `width` wide, where that size is a constant."""
    place = 0 if node.op == "ConstantOfShape" else 1
    shape, axis = node.inputs[place], stream.axes[node.outputs[0].name]
    values, above = constant(shape), producer(shape)
    if values is not None and values[axis] == stream.width:
        narrow = values.copy()
        narrow[axis] = width
        node.inputs[place] = build.constant(shape.name, narrow)
    elif above is not None and above.op == "Concat" and axis == -1:
        last = constant(above.inputs[-1])
        if last is not None and last[-1] == stream.width:
            narrow = last.copy()
            narrow[-1] = width
            sizes = [*above.inputs[:-1], build.constant(above.inputs[-1].name, narrow)]
            node.inputs[place] = build.node("Concat", shape.name, sizes, axis=0)


def restore(model: Model, name: str, weight: Array, bias: Array) -> str:
    """Behind the tensor `name` [.., width] put a dense layer, weight [width, hidden] and bias [hidden].

    What read the tensor, and the graph's user, get that layer's result under the same name. Returns the name that the
    narrow tensor has from now on.
    """
    wide = model.graph.tensors()[name]
    writer = wide.inputs[0]
    build = Builder(model.graph, "")
    narrow = gs.Variable(build.unique(f"{name}/narrow"))
    writer.outputs[next(i for i, tensor in enumerate(writer.outputs) if tensor is wide)] = narrow
    rows, shift = (
        build.constant(f"{name}/{part}", x.astype(np.float32)) for part, x in (("weight", weight), ("bias", bias))
    )
    product = build.node("MatMul", f"{name}/restored", [narrow, rows])
    result = build.node("Add", f"{name}/wide", [product, shift])
    node = result.inputs[0]
    result.inputs.clear()
    node.outputs = [wide]
    model.changed()
    return str(narrow.name)


def check_narrow(
    before: Mapping[str, Array], model: Model, stream: Stream, kept: Array, last: str | None, feeds: Mapping[str, Array]
) -> None:
    """Run the narrowed `model` and compare with what the tensors of the whole one held (`before`), on the same `feeds`.

    last: the tensor that is restored, if any. Along the stream there are as many channels as are kept; all else has the
    shape that it had; and what is computed without the stream's values, masks and sizes, is what it was, but for the
    number of channels itself. Raises PassError where that is not so: the graph uses that number in a way not seen here.
    """
    try:
        now = every_value(model, feeds)
    except ModelError as error:
        raise PassError(f"prune-hidden: the graph does not run with {len(kept)} channels: {one_line(error)}") from error
    moved = set[str]()
    for node in model.graph.nodes:
        read = [] if node.op == "Shape" else [tensor.name for tensor in read_by(node)]
        depends = any(name in moved or name in stream.axes for name in read if name in now)
        for tensor in node.outputs:
            moved |= {tensor.name} if depends else set()
            if tensor.name not in before or tensor.name not in now:
                continue
            old, new = before[tensor.name], now[tensor.name]
            axis = None if tensor.name == last else stream.axes.get(tensor.name)
            old = old if axis is None else old.take(kept, axis)
            if old.shape != new.shape or not (depends or _same(old, new, stream.width, len(kept))):
                place = f"node {node.name!r} ({node.op})"
                raise PassError(f"prune-hidden: {place} depends on the number of channels, {stream.width}")


def _same(old: Array, new: Array, width: int, kept: int) -> bool:
    if old.dtype.kind in "iu":
        return bool(((old == new) | ((old == width) & (new == kept))).all())
    return np.array_equal(old, new, equal_nan=old.dtype.kind == "f")
