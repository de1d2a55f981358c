"""What the nodes between query, key, value and context compute, proven by running them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, run
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.region import ALONE, MANY, Region, is_close, lookups
from onnxslim_bert.model.token_masks import (
    as_choices,
    choice_inputs,
    probe_size,
    token_inputs,
    token_type,
)

LONGEST = 1100  # tokens of a probe
MEMORY = 300  # tokens from which a probe has one row
FUSED_ATTENTION = ("MultiHeadAttention", "Attention")
CAUSAL = "each token sees only earlier ones (a causal mask)"
DECODER = f"not an encoder: {CAUSAL}, so this is a decoder"


@dataclass(frozen=True)
class AttentionForm:
    """What one attention computes: softmax(scale * q @ k.T + mask) @ v for each head, the heads side by side.

    mask: the tensor [batch, seq] whose zeros hide keys: a graph input, or what the graph makes of token ids; None when
    every key is seen.
    """

    scale: float
    mask: str | None


_KNOWN: dict[str, AttentionForm | str] = {}
_KNOWN_MOST = 512


def attention_form(region: Region, heads: int) -> AttentionForm | str:
    """The form of `region`, or the reason why it is not proven to be attention, in words.

    The nodes are run on rows of a few tokens and compared with `attention`. Where they compare or shift positions, they
    are run on longer rows too: a window of 64 tokens does not show in rows of 7, and does in rows of 131. Equal nodes,
    as layers have them, are run once.
    """
    if region.stranger is not None:
        return f"the attention also reads {region.stranger!r}"
    if len(set(region.widths[:3])) > 1:
        return f"query, key and value are {', '.join(map(str, region.widths[:3]))} wide: heads share keys, or differ"
    key = region.key(heads)
    if key not in _KNOWN:
        if len(_KNOWN) >= _KNOWN_MOST:
            _KNOWN.clear()
        _KNOWN[key] = _proven(region, heads)
    return _KNOWN[key]


def _proven(region: Region, heads: int) -> AttentionForm | str:
    batch, seq = probe_size(region.graph)
    form = _form_at(region, heads, batch, seq)
    if isinstance(form, str):
        return form
    met = region.horizon()
    if isinstance(met, str):
        return met
    lengths = [length for length in met.lengths if length > seq]
    if lengths and lengths[-1] > LONGEST:
        return (
            f"it compares positions with {max(met.number, met.table)}, more than a probe of {LONGEST} tokens can show"
        )
    return _form_beyond(region, heads, form, lengths)


def _form_beyond(region: Region, heads: int, form: AttentionForm, lengths: Sequence[int]) -> AttentionForm | str:
    """`form`, if it holds in rows of the first of `lengths` that the region takes."""
    longer: AttentionForm | str = form
    for length in lengths:
        batch = min(probe_size(region.graph)[0], 1 if length > MEMORY else 2)
        longer = _form_at(region, heads, batch, length) if length <= LONGEST else ALONE
        if longer == form:
            return form
        if isinstance(longer, AttentionForm) or not longer.startswith(ALONE):
            return (
                f"tokens far apart see each other otherwise than near ones (a window, or a bias; {length} tokens tried)"
            )
    return longer


def _form_at(region: Region, heads: int, batch: int, seq: int) -> AttentionForm | str:
    """The form in rows of `seq` tokens."""
    feeds = region.feeds(batch, seq)
    q, k, v = (feeds[tensor.name].astype(np.float32) for tensor in region.sources)
    rng = np.random.default_rng(1)
    holes = (rng.random((batch, seq)) < 0.6).astype(np.int64)
    holes[:, 0], holes[:, -1] = 1 - np.arange(batch) % 2, 1  # every other row is padded on the left
    everything = np.ones((batch, seq), np.int64)
    scale = 1 / np.sqrt(q.shape[-1] // heads)
    for mask in [*region.candidates, None]:
        try:
            actual = region.run(feeds, mask, None if mask is None else holes)
        except ValueError as error:
            return f"{ALONE} ({error})"
        seen = (everything if mask is None else holes)[:, None, :]
        for factor in (scale, 1.0):
            if is_close(actual, attention(q, k, v, heads, factor, seen)):
                shut = region.run(feeds, None, holes) if mask is None and region.candidates else actual
                if not is_close(shut, actual):
                    names = " and ".join(repr(other.tensor.name) for other in region.candidates)
                    return f"it reads {names} otherwise than to hide the keys at zeros"
                if (besides := region.also_reads(feeds, mask)) is not None:
                    return f"it also reads {besides!r}, other than to hide keys"
                if mask is not None and not region.hides(feeds, mask, holes):
                    return f"zeros of {mask.tensor.name!r} lower scores too little to hide their keys from large ones"
                return AttentionForm(float(factor), mask.tensor.name if mask is not None else None)
            causal = attention(q, k, v, heads, factor, seen & np.tri(q.shape[1], seq, dtype=bool))
            if q.shape[1] > 1 and actual.size == causal.size and is_close(actual.reshape(causal.shape), causal):
                return CAUSAL
    return "it is not scaled dot-product attention with a mask over keys"


def probe_shape(graph: gs.Graph, linear: Linear, target: gs.Tensor) -> tuple[int, ...]:
    """The shape of `target`, which is computed from the result of the dense layer `linear`, on a probe batch.

    The dense layer gives [batch, seq, width], or [tokens, width] where padding has been dropped.
    Raises ModelError when the nodes between do not run by themselves.
    """
    batch, seq = probe_size(graph)
    tensors = graph.tensors()
    half = tensors[linear.weight].values.dtype == np.float16
    widths = {linear.result: linear.d_out, linear.source: linear.d_in}
    feeds: dict[str, Array] = {t.name: np.zeros((batch, seq, *x.shape[1:]), x.dtype) for t, x in lookups(graph)}
    nodes = nodes_between([*(tensors[name] for name in [*feeds, *widths]), *token_inputs(graph)], target)
    if not nodes:
        return (linear.d_out,)
    ones = {t.name: np.ones((batch, seq), token_type(t)) for t in [*token_inputs(graph), *choice_inputs(graph)]}
    feeds |= ones | {t.name: as_choices(t, ones[t.name]) for t in choice_inputs(graph)}
    read = {t.name for t in inputs_of(nodes)}
    for tokens in ((batch, seq), (batch * seq,)):
        feeds |= {n: np.zeros((*tokens, width), np.float16 if half else np.float32) for n, width in widths.items()}
        try:
            return run(nodes, {n: v for n, v in feeds.items() if n in read}, target, opsets_of(graph)).shape
        except ValueError as error:
            reason = f"the nodes from {linear.result!r} to {target.name!r} do not run ({error})"
    raise ModelError(reason)


def is_causal(graph: gs.Graph, context: gs.Tensor) -> bool:
    """Whether `context` [..., seq, head_dim], the result of one attention, is a decoder's.

    It is when tokens see only earlier ones: the last token of a probe is changed, and no earlier position changes.
    """
    nodes = nodes_between(token_inputs(graph), context)
    read = {t.name for t in inputs_of(nodes)}
    rng = np.random.default_rng(0)
    given = {}
    for tensor in [t for t in token_inputs(graph) if t.name in read]:
        rows = min([MANY, *(len(x) for node in tensor.outputs for x in _tables(node, tensor))])
        is_ids = any(_tables(node, tensor) for node in tensor.outputs)
        values = rng.integers(0, rows, probe_size(graph)) if is_ids else np.ones(probe_size(graph))
        given[tensor.name] = values.astype(token_type(tensor))
    changed = {name: np.where(np.arange(v.shape[1]) < v.shape[1] - 1, v, v == 0) for name, v in given.items()}
    changed = {name: values.astype(given[name].dtype) for name, values in changed.items()}
    try:
        before, after = (run(nodes, feeds, context, opsets_of(graph)) for feeds in (given, changed))
    except ValueError:
        return False
    return is_close(before[..., :-1, :], after[..., :-1, :]) and not is_close(before, after)


def _tables(node: gs.Node, indices: gs.Tensor) -> list[Array]:
    """The table in which `node` looks up `indices`."""
    table = constant(node.inputs[0]) if node.op == "Gather" and node.inputs[1] is indices else None
    return [] if table is None or table.ndim < 2 else [table]


def attention(
    query: Array, key: Array, value: Array, heads: int, scale: float, seen: Array | bool, bias: Array | float = 0.0
) -> Array:
    """Multi-head attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    query, key, value [batch, seq, heads * head_dim]; seen, True where a key is visible, broadcasts to
    [batch, query, key]; bias, added to the scores, to [batch, heads, query, key] -> [batch, seq, heads * head_dim]
    """
    batch, length, width = query.shape
    split = [x.reshape(batch, -1, heads, x.shape[-1] // heads).transpose(0, 2, 1, 3) for x in (query, key, value)]
    scores = scale * split[0] @ split[1].transpose(0, 1, 3, 2) + bias
    scores = np.where(np.broadcast_to(seen, (batch, length, key.shape[1]))[:, None], scores, -np.inf)
    with np.errstate(invalid="ignore"):  # of tokens that see none
        weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: Array = (weights / weights.sum(-1, keepdims=True)) @ split[2]
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, width)
