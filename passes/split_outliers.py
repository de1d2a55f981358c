"""Keep the few channels with extreme activations in float, beside the int8 product."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.dense import dense_layers, encoder_of, group_sites
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.int8.error import choose_scales, product_error, some_columns
from onnxslim_bert.rewriting.marks import SPLIT_OUTLIERS
from onnxslim_bert.wording import plural

COUNTS = (1, 2, 4, 8, 16)
FARTHEST = 1.5  # times the other channels' range that the largest must reach to be an outlier
LARGEST_SHARE = 0.125  # of the channels that may be outliers
CLOSE = 1.1  # the smallest count whose error is this near the least one


@dataclass(frozen=True)
class SplitOutliers(Pass):
    """Multiply the few channels with extreme activations apart, in float, so that int8 resolves the others.

    After GELU a handful of neurons reach tens, where the others stay below one or two, and one range for all leaves
    those others few of the 256 levels. So x @ W becomes clip(x) @ W', in int8, plus x[outliers] @ W[outliers], in
    float; W' is W with the outliers' rows zeroed. Example: if neuron 7 reaches 40 and all others 2, the int8 product
    has the range of 2, and neuron 7 is multiplied apart.

    The clip is at the smallest and the largest value of the other channels on calibration rows, where their quantizer
    would saturate anyway. At most 16 channels, and an eighth of all, are split off.

    gain: a layer is split only if the error of its int8 product on calibration rows falls below this share of what it
        is without a split, smoothed or not, in (0, 1].

    Dettmers et al. 2022, https://arxiv.org/abs/2208.07339
    """

    name: ClassVar[str] = "split-outliers"
    keeps_activations: ClassVar[bool] = True
    gain: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.gain <= 1:
            raise PassError(f"split-outliers: gain={self.gain} is not in (0, 1]")

    def wants(self, model: Model) -> Iterable[Want]:
        sources = [linear.source for linear in _alone(model)]
        return [
            want for source in sources for want in (Want(source, "sample"), Want(source, "channel-range", hard=True))
        ]

    def apply(self, model: Model, ctx: Context) -> Change:
        details: dict[str, int] = {}
        build = SPLIT_OUTLIERS.builder(model.graph)
        for linear in _alone(model):
            rows = ctx.stats[Want(linear.source, "sample")]
            spanned = ctx.stats[Want(linear.source, "channel-range", hard=True)]
            outliers = choose_outliers(rows, spanned, model.array(linear.weight), self.gain)
            if len(outliers):
                _split(model, build, linear, outliers, spanned)
                details[linear.node] = len(outliers)
        model.changed()
        note = f"{plural(sum(details.values()), 'channel')} in float, in {plural(len(details), 'layer')}"
        return Change(len(details), note if details else "no channel is better in float", details)


def choose_outliers(rows: Array, spanned: Array, weight: Array, gain: float) -> Array:
    """The channels to keep in float, ascending; none when splitting does not pay.

    rows [n, channels], spanned [2, channels], weight [channels, d_out].
    """
    largest = np.abs(spanned).max(0)
    order = np.argsort(-largest, kind="stable")
    counts = [count for count in COUNTS if count <= len(order) * LARGEST_SHARE]
    if not counts or largest[order[0]] < FARTHEST * largest[order[counts[-1]]]:
        return np.zeros(0, np.int64)

    measured = some_columns(weight)

    def without(count: int) -> float:
        kept = np.sort(order[count:])
        return product_error(rows[:, kept], spanned[:, kept], measured[kept], rows[:, kept] @ measured[kept])

    least = without(counts[-1])
    # errors are squared
    if least >= gain**2 * without(0) or least >= gain**2 * choose_scales(rows, spanned, [weight], 1.0)[2]:
        return np.zeros(0, np.int64)
    return np.sort(order[: next(count for count in counts if without(count) <= CLOSE**2 * least)])


def _alone(model: Model) -> list[Linear]:
    """The dense layers that may be split: those that share neither input nor weight and see every token.

    Only where the output is no wider than the input, as in `output` and `down`: elsewhere, as in `up`, scaling the
    input (`smooth`) costs less than a split.
    """
    layers = encoder.layers if (encoder := encoder_of(model)) is not None else ()
    single = [x.node for layer in layers if layer.first_token for x in layer.linears.values()]
    groups = group_sites(dense_layers(model))
    alone = [sites[0][0] for sites in groups if len(sites) == 1 and len(sites[0]) == 1]
    return [x for x in alone if x.d_in >= x.d_out and not x.trans_b and x.node not in single]


def _split(model: Model, build: Builder, linear: Linear, outliers: Array, spanned: Array) -> None:
    tensors = model.graph.tensors()
    source, result = tensors[linear.source], tensors[linear.result]
    node = next(node for node in model.graph.nodes if node.name == linear.node)
    weight = model.array(linear.weight)
    others = np.setdiff1d(np.arange(linear.d_in), outliers)
    bounds = [spanned[0][others].min(), spanned[1][others].max()]
    low, high = (build.constant(name, np.array(x, np.float32)) for name, x in zip(("low", "high"), bounds, strict=True))
    chosen = build.node("Gather", "channels", [source, build.constant("indices", outliers)], axis=-1)
    product = build.node("MatMul", "product", [chosen, build.constant("rows", weight[outliers])])
    rest = weight.copy()
    rest[outliers] = 0
    model.replace(linear.weight, rest)
    node.inputs[0] = build.node("Clip", "clipped", [source, low, high])
    readers = list(result.outputs)
    if len(readers) == 1 and readers[0].op == "Sum":
        readers[0].inputs.append(product)
    else:
        redirect(model.graph, result, build.node("Sum", "sum", [product]))
        product.outputs[0].inputs.append(result)
