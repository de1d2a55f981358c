"""Move the outliers of activations into weights, where int8 has one scale a channel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder
from onnxslim_bert.graph.probe import nodes_between, producer, subgraph_nodes
from onnxslim_bert.model.dense import dense_layers, encoder_of, group_sites
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.error import choose_scales
from onnxslim_bert.rewriting.marks import SPLIT_OUTLIERS
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class Smooth(Pass):
    """Divide each input channel of a dense layer by a scale, and multiply that channel's row of the weight by it.

    The product is the same, but int8 rounds less of it away, because channels come closer to each other in size:
    scale = activation_max ** strength / weight_max ** (1 - strength). Example: with strength 0.5, a channel that
    reaches 64 beside weights of 1 is divided by 8, one that reaches 1 stays (then all scales are brought to a geometric
    mean of 1). For each input six strengths and no smoothing at all are tried, and the one with the least error of the
    int8 product on calibration rows is taken.

    The division costs nothing where it folds into what writes the input: into the columns of value before `output`, or
    into gamma and beta of a norm that nothing else reads. Elsewhere (behind the norm of a residual sum, behind GELU) a
    Mul node divides, which must pay: see gain.

    gain: a Mul is written only if the squared error falls below this share of what it was, in (0, 1].

    Xiao et al. 2023, https://arxiv.org/abs/2211.10438
    """

    name: ClassVar[str] = "smooth"
    exact: ClassVar[float | None] = 1e-4
    empty_rows: ClassVar[bool] = True
    tokenwise: ClassVar[bool] = True
    gain: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gain <= 1:
            raise PassError(f"smooth: gain={self.gain} is not in (0, 1]")

    def wants(self, model: Model) -> Iterable[Want]:
        sources = dict.fromkeys(linear.source for linear in _whole(model))
        return [
            want for source in sources for want in (Want(source, "sample"), Want(source, "channel-range", hard=True))
        ]

    def apply(self, model: Model, ctx: Context) -> Change:
        details: dict[str, float] = {}
        muls = 0
        build = Builder(model.graph, "smooth")
        encoder = encoder_of(model)  # once: what is divided and multiplied below moves no role
        layers = encoder.layers if encoder is not None else ()
        for sites in group_sites(_whole(model)):
            weights = [_matrix(model, linear) for linear in _distinct(sites)]
            rows = np.concatenate([ctx.stats[Want(site[0].source, "sample")] for site in sites])
            ranges = [ctx.stats[Want(site[0].source, "channel-range", hard=True)] for site in sites]
            spanned = np.stack([np.min([r[0] for r in ranges], 0), np.max([r[1] for r in ranges], 0)])
            homes = _homes(model, layers, sites)
            strength, scales, _ = choose_scales(rows, spanned, weights, 1.0 if homes else self.gain)
            if scales is None:
                continue
            divided: dict[str, gs.Constant] = {}
            for node, position in homes:
                old = node.inputs[position]
                if old.name not in divided:  # layers that share a constant go on sharing it
                    divided[old.name] = build.constant(old.name, (old.values / scales).astype(old.values.dtype))
                node.inputs[position] = divided[old.name]
            for site in sites:
                details[site[0].node] = strength
                if not homes:
                    _insert_mul(model, build, site, scales)
                    muls += 1
            for linear in _distinct(sites):
                rowwise = scales[None, :] if linear.trans_b else scales[:, None]
                model.replace(linear.weight, model.array(linear.weight) * rowwise)
        model.changed()
        return Change(len(details), f"{plural(len(details), 'input')} smoothed, {muls} of them by a Mul", details)


def _whole(model: Model) -> list[Linear]:
    """The dense layers without the mark of `split-outliers`, which has dealt with the outliers of the others."""
    tensors = model.graph.tensors()
    return [linear for linear in dense_layers(model) if not SPLIT_OUTLIERS.is_above(tensors[linear.source])]


def _distinct(sites: Sequence[Sequence[Linear]]) -> list[Linear]:
    return list({linear.weight: linear for site in sites for linear in site}.values())


def _matrix(model: Model, linear: Linear) -> Array:
    weight = model.array(linear.weight)
    return weight.T if linear.trans_b else weight


def _homes(model: Model, layers: Sequence[Layer], sites: Sequence[Sequence[Linear]]) -> list[tuple[gs.Node, int]]:
    """Where the scales fold in: constants, as (node, input position), to divide; empty when a Mul is needed.

    Not into what a file computes, as from int8 behind Cast and Mul.
    """
    homes = [_value_home(model, layers, site[0].source) or _norm_home(model, site) for site in sites]
    places = [place for home in homes for place in home]
    return places if all(homes) and all(isinstance(node.inputs[i], gs.Constant) for node, i in places) else []


def _value_home(model: Model, layers: Sequence[Layer], source: str) -> list[tuple[gs.Node, int]]:
    """Value's weight and bias, when `source` is the result of attention; empty otherwise.

    A channel of that result is a mix of that channel of the values alone, so a scale passes through attention.
    """
    layer = next((x for x in layers if x.context == source and x.form is not None), None)
    if layer is None or not _only_mixed(model, layer):
        return []
    nodes = {node.name: node for node in model.graph.nodes}
    value = layer.value
    places = [(nodes[value.node], 1)]
    if value.bias is not None:
        adder = model.graph.tensors()[value.result].inputs[0]
        places.append((adder, next(i for i, t in enumerate(adder.inputs) if t.name == value.bias)))
    return [] if value.trans_b else places


def _only_mixed(model: Model, layer: Layer) -> bool:
    """Whether attention alone reads the layer's values; `drop-tokens` reads their lengths too."""
    tensors = model.graph.tensors()
    roles = [tensors[linear.result] for linear in (layer.query, layer.key, layer.value)]
    attention = nodes_between(roles, tensors[layer.context])
    inside = {id(inner) for node in attention for inner in (node, *subgraph_nodes(node))}
    return all(id(reader) in inside for reader in roles[2].outputs)


def _norm_home(model: Model, site: Sequence[Linear]) -> list[tuple[gs.Node, int]]:
    """The gamma and beta of the norm before `site`, when nothing else reads that norm."""
    tensor = model.graph.tensors()[site[0].source]
    node = producer(tensor)
    if node is None or node.op != "LayerNormalization" or len(tensor.outputs) != len(site):
        return []
    return [(node, i) for i in range(1, len(node.inputs))]


def _insert_mul(model: Model, build: Builder, site: Sequence[Linear], scales: Array) -> None:
    source = model.graph.tensors()[site[0].source]
    factors = build.constant(f"{source.name}/factors", (1 / scales).astype(np.float32))
    smoothed = build.node("Mul", source.name, [source, factors])
    names = {linear.node for linear in site}
    for node in [node for node in source.outputs if node.name in names]:
        node.inputs[next(i for i, t in enumerate(node.inputs) if t is source)] = smoothed
