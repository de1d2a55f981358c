"""Replace dense layers by two thin ones, where that is faster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.dense import dense_layers, group_sites
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.pruning.least_squares import moments
from onnxslim_bert.rewriting.weights.factors import Products, channel_shares, rank_of_energy
from onnxslim_bert.wording import plural

Roles = Literal["all", "attention", "ffn"]
FEED_FORWARD = ("gate", "up", "down")
ONE_TOKEN = ("query", "output", "gate", "up", "down")  # of a layer that `first-token` has rewritten
UNSET = -1
KEEP = 0.93

Group = list[list[Linear]]  # sites, each the layers that read one tensor; all sites use the same weights


@dataclass(frozen=True)
class LowRank(Pass):
    """Multiply by two thin matrices instead of one, x @ weight -> x @ left @ right, where that is faster.

    weight [d_in, d_out] becomes left [d_in, rank] and right [rank, d_out], rank * (d_in + d_out) multiplications a
    token instead of d_in * d_out. Example: 384 x 1536 at rank 154 are 295,680 instead of 589,824, a half.

    Of all factors of that rank the pass takes those whose products on calibration rows are nearest to the old ones; the
    products' mean stays exactly. This loses little, though weights have full rank, because the activations that they
    meet vary in few directions. Query, key and value share one `left`, which at equal work loses less than one each.
    Layers that see one token only stay as they are. Run it after the other passes that change structure, which want
    whole matrices, and before quantization.

    Give keep or rank, or none for keep=0.93:
    keep: how much of a channel's variance is kept, on average over the channels of a layer, in (0, 1]. The rank follows
        from it. Each channel counts the same; else a few with extreme values, which the next norm makes small anyway,
        would outweigh all others.
    rank: the rank as a fraction of the full one, in (0, 1].

    roles: the layers that it may take: all, attention or ffn.
    pays: a layer gets factors only where they leave at most this share of its multiplications. Measured with int8 at
        128 tokens on one AVX512-VNNI core: 0.5 of the multiplications take 0.54 to 0.64 of the time (768 x 768: 0.57),
        0.75 of them 0.79 to 0.86, and 0.95 as long as before (768 x 3072: 0.96).

    Chen et al. 2021, https://proceedings.neurips.cc/paper/2021/hash/f56de5ef149cf0aedcc8f4797031e229-Abstract.html
    """

    name: ClassVar[str] = "low-rank"
    keep: float = UNSET
    rank: float = UNSET
    roles: Roles = "all"
    pays: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep != UNSET and self.rank != UNSET:
            raise PassError("low-rank: keep and rank are given; give one of them")
        for name in ("keep", "rank"):
            if (value := getattr(self, name)) != UNSET and not 0 < value <= 1:
                raise PassError(f"low-rank: {name}={value} is not in (0, 1]")
        if self.pays <= 0:
            raise PassError(f"low-rank: pays={self.pays} is not above 0")

    def wants(self, model: Model) -> Iterable[Want]:
        return [want for group in self._groups(model) for want in _wants(group)]

    def apply(self, model: Model, ctx: Context) -> Change:
        ranks: dict[str, int] = {}
        whole: list[float] = []
        groups = self._groups(model)
        if not groups:
            return Change(0, "every dense layer is quantized, in factors already, or sees one token only")
        for group in groups:
            products = find_products(model, group, [ctx.stats[want] for want in _wants(group)])
            rank = self._rank(channel_shares(products.variances, products.axes))
            d_in, d_out = products.weight.shape
            share = rank * (d_in + d_out) / (d_in * d_out)
            if share > self.pays:
                whole.append(share)
                continue
            write_factors(model, group, *products.factors(rank))
            ranks |= {linear.node: rank for site in group for linear in site}
        model.changed()
        note = f"{plural(len(ranks), 'dense layer')} in two factors"
        if whole:
            left = plural(len(whole), "matrix", "matrices")
            note += f"; {left} left whole: factors would leave {min(whole):.2f} or more of the work"
        return Change(len(ranks), note, ranks)

    def _rank(self, shares: Array) -> int:
        if self.rank != UNSET:
            return max(round(self.rank * len(shares)), 1)
        return rank_of_energy(shares, KEEP if self.keep == UNSET else self.keep)

    def _groups(self, model: Model) -> list[Group]:
        dense = dense_layers(model)
        several, single = list[Linear](), list[Linear]()
        for layer in model.encoder.layers:
            for role, linear in layer.linears.items():
                if linear in dense and self.roles in ("all", "ffn" if role in FEED_FORWARD else "attention"):
                    (single if layer.first_token and role in ONE_TOKEN else several).append(linear)
        stored = {linear.weight for linear in several}
        return group_sites([*several, *(linear for linear in single if linear.weight in stored)])


def find_products(model: Model, group: Group, grams: Sequence[Gram]) -> Products:
    """The products of the weights of `group` on calibration rows. grams: for each site, what `_wants` asked for."""
    linears = _distinct(group)
    weights = [_matrix(model, linear) for linear in linears]
    covariance, mean = moments(grams)
    if _reads_inputs(group):
        return Products.of_inputs(weights, mean, covariance)
    return Products.of_outputs(weights[0], mean - _bias(model, linears[0]), covariance)


def write_factors(model: Model, group: Group, left: Array, right: Array, shift: Array) -> None:
    """Let the layers of `group` multiply by left [d_in, rank] and then by their own columns of right [rank, d_out].

    shift [d_out] is added to their biases.
    """
    build = Builder(model.graph, "low-rank")
    tensors = model.graph.tensors()
    linears = _distinct(group)
    ends = np.cumsum([linear.d_out for linear in linears])
    columns = {linear.weight: slice(end - linear.d_out, end) for linear, end in zip(linears, ends, strict=True)}
    for site in group:
        shared = build.constant(f"{site[0].weight}/left", left.astype(np.float32))
        thin = build.node("MatMul", f"{site[0].node}/left", [tensors[site[0].source], shared])
        for linear in site:
            own = columns[linear.weight]
            matrix = build.constant(f"{linear.weight}/right", right[:, own].astype(np.float32))
            bias = build.constant(f"{linear.node}/bias", (_bias(model, linear) + shift[own]).astype(np.float32))
            product = build.node("MatMul", f"{linear.node}/right", [thin, matrix])
            redirect(model.graph, tensors[linear.result], build.node("Add", linear.node, [product, bias]))


def _wants(group: Group) -> list[Want]:
    """The second moments that the factors of `group` follow from, one for each site.

    Those of the site's results, where one weight gives them and they are narrower than its inputs; else of its inputs.
    Example: [1536, 384] `down` matrices ask for 384 x 384 numbers instead of 1536 x 1536.
    """
    return [Want(site[0].source if _reads_inputs(group) else site[0].result, "gram") for site in group]


def _reads_inputs(group: Group) -> bool:
    several = len(_distinct(group)) > 1  # whose products have no moments in common
    return several or group[0][0].d_in <= group[0][0].d_out


def _distinct(group: Group) -> list[Linear]:
    """One layer for each weight."""
    return list({linear.weight: linear for site in group for linear in site}.values())


def _matrix(model: Model, linear: Linear) -> Array:
    weight = model.array(linear.weight)
    return (weight.T if linear.trans_b else weight).astype(np.float64)


def _bias(model: Model, linear: Linear) -> Array:
    return model.array(linear.bias) if linear.bias else np.zeros(linear.d_out, np.float32)
