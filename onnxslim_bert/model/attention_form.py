"""What the nodes between query, key, value and context compute, proven by running them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.probe import constant, inputs_of, nodes_between, opsets_of, producer, run
from onnxslim_bert.model.linear import Linear

TOLERANCE = 2e-5
HALF_TOLERANCE = 5e-3
DECODER = "not an encoder: each token sees only earlier ones (a causal mask), so this is a decoder"


@dataclass(frozen=True)
class AttentionForm:
    """softmax(scale * q @ k.T + mask) @ v for each head, the heads side by side.

    mask: the [batch, seq] graph input whose zeros hide keys, None when every key is seen.
    """

    scale: float
    mask: str | None


def attention_form(
    graph: gs.Graph,
    sources: Sequence[gs.Tensor],
    hidden: gs.Tensor,
    target: gs.Tensor,
    heads: int,
    widths: Sequence[int],
    first_token: bool = False,
    half: bool = False,
) -> AttentionForm | str:
    """The form of the region from `sources` (query, key, value) to `target`, or why it is not proven.

    hidden: the layer's input, which some exporters read for its shape. widths: of query, key, value and hidden.
    first_token: the query has position 0 only. half: query, key and value are float16.
    Raises ModelError for a causal mask: that is a decoder.
    """
    tokens = masks(graph)
    batch, seq = probe_size(graph)
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {
        tensor.name: rng.standard_normal((batch, seq, width)).astype(np.float16 if half else np.float32)
        for tensor, width in zip([*sources, hidden], widths, strict=True)
    }
    if first_token:
        feeds[sources[0].name] = feeds[sources[0].name][:, :1]
    q, k, v = (feeds[tensor.name].astype(np.float32) for tensor in sources)
    embedded = _embedded(graph)
    feeds = {name: rows for name, (_, rows) in embedded.items()} | feeds
    nodes = nodes_between([*sources, hidden, *(tensor for tensor, _ in embedded.values()), *tokens], target)
    read = [t.name for t in inputs_of(nodes)]
    candidates = [t for t in tokens if t.name in read]
    unknown = [name for name in read if name not in feeds and name not in {t.name for t in candidates}]
    if unknown:
        return f"the attention also reads {unknown[0]!r}"
    holes = (rng.random((batch, seq)) < 0.6).astype(np.int64)
    holes[:, 0] = 1
    everything = np.ones((batch, seq), np.int64)
    scale = 1 / np.sqrt(q.shape[-1] // heads)

    def answer(masks: Sequence[gs.Tensor]) -> Array:
        chosen = {t.name: (holes if t in masks else everything).astype(t.dtype or np.int64) for t in candidates}
        given = {name: values for name, values in (feeds | chosen).items() if name in read}
        return run(nodes, given, target, opsets_of(graph))

    for mask in [*candidates, None]:
        try:
            actual = answer([] if mask is None else [mask])
        except ValueError as error:
            return f"it does not run by itself ({' '.join(str(error).split())[:160]})"
        seen = (everything if mask is None else holes)[:, None, :]
        for factor in (scale, 1.0):
            if _close(actual, attention(q, k, v, heads, factor, seen)):
                if mask is None and candidates and not _close(answer(candidates), actual):
                    names = " and ".join(repr(t.name) for t in candidates)
                    return f"it reads {names} otherwise than to hide the keys at zeros"
                return AttentionForm(float(factor), mask.name if mask is not None else None)
            causal = seen & np.tri(q.shape[1], seq, dtype=bool)
            if q.shape[1] > 1 and _close(actual, attention(q, k, v, heads, factor, causal)):
                raise ModelError(DECODER)
    return "it is not scaled dot-product attention with a mask over keys"


def probe_shape(graph: gs.Graph, linear: Linear, target: gs.Tensor) -> tuple[int, ...]:
    """The shape of `target`, which lies below the dense layer `linear`, on a probe batch.

    Raises ModelError when the nodes between do not run by themselves.
    """
    batch, seq = probe_size(graph)
    tensors = graph.tensors()
    half = tensors[linear.weight].values.dtype == np.float16
    widths = {linear.result: linear.d_out, linear.source: linear.d_in}
    feeds: dict[str, Array] = {name: rows for name, (_, rows) in _embedded(graph).items()}
    feeds |= {n: np.zeros((batch, seq, width), np.float16 if half else np.float32) for n, width in widths.items()}
    nodes = nodes_between([tensors[name] for name in feeds], target)
    feeds |= {t.name: np.ones((batch, seq), t.dtype or np.int64) for t in token_inputs(graph)}
    read = {t.name for t in inputs_of(nodes)}
    try:
        return (
            run(nodes, {n: v for n, v in feeds.items() if n in read}, target, opsets_of(graph)).shape
            if nodes
            else (linear.d_out,)
        )
    except ValueError as error:
        raise ModelError(f"the nodes from {linear.result!r} to {target.name!r} do not run ({error})") from error


def is_causal(graph: gs.Graph, context: gs.Tensor) -> bool:
    """Whether `context` [..., seq, head_dim], what one attention gives, is a decoder's.

    The last token of a probe is changed: where that reaches no earlier token, tokens see only earlier ones.
    """
    nodes = nodes_between([], context)
    read = {t.name for t in inputs_of(nodes)}
    ones = {t.name: np.ones(probe_size(graph), t.dtype or np.int64) for t in token_inputs(graph) if t.name in read}
    changed = {name: values * (np.arange(values.shape[1]) < values.shape[1] - 1) for name, values in ones.items()}
    changed = {name: values.astype(ones[name].dtype) for name, values in changed.items()}
    try:
        before, after = (run(nodes, feeds, context, opsets_of(graph)) for feeds in (ones, changed))
    except ValueError:
        return False
    return _close(before[..., :-1, :], after[..., :-1, :]) and not _close(before, after)


def token_inputs(graph: gs.Graph) -> list[gs.Tensor]:
    """The graph inputs of shape [batch, seq]."""
    return [t for t in graph.inputs if t.shape is not None and len(t.shape) == 2]


def masks(graph: gs.Graph) -> list[gs.Tensor]:
    """The tensors that may be masks over keys: inputs [batch, seq], and parts of them [batch, kept].

    Such a part (`drop-tokens` writes it) is what GatherND takes of a mask, times 0 for places that no token fills.
    """
    inputs = token_inputs(graph)
    parts = [
        node.outputs[0]
        for node in graph.nodes
        if node.op == "Mul" and (above := producer(node.inputs[0])) is not None and above.op == "GatherND"
    ]
    return inputs + [part for part in parts if any(_taken_from(part) is tensor for tensor in inputs)]


def _taken_from(tensor: gs.Tensor) -> gs.Tensor:
    """The tensor that `tensor` was taken from."""
    while (node := producer(tensor)) is not None and node.op in ("Cast", "Mul", "GatherND"):
        tensor = node.inputs[0]
    return tensor


def probe_size(graph: gs.Graph) -> tuple[int, int]:
    """A batch and a length that the inputs accept: their own where they are fixed, else 3 and 7."""
    shapes = [t.shape for t in graph.inputs if t.shape is not None and len(t.shape) >= 2]
    batch, seq = (next((s[i] for s in shapes if isinstance(s[i], int)), size) for i, size in ((0, 3), (1, 7)))
    return int(batch), int(seq)


def _embedded(graph: gs.Graph) -> dict[str, tuple[gs.Tensor, Array]]:
    """What embedding tables give for a graph input, with rows of that shape: some exporters read the shape there."""
    tokens = {t.name for t in token_inputs(graph)}
    return {
        node.outputs[0].name: (node.outputs[0], np.zeros((*probe_size(graph), *table.shape[1:]), table.dtype))
        for node in graph.nodes
        if node.op == "Gather"
        and node.inputs[1].name in tokens
        and (table := constant(node.inputs[0])) is not None
        and table.ndim > 1
    }


def attention(query: Array, key: Array, value: Array, heads: int, scale: float, seen: Array) -> Array:
    """Multi-head attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762).

    query, key, value [batch, seq, heads * head_dim]; seen, True where a key is visible, broadcasts to
    [batch, query, key] -> [batch, seq, heads * head_dim]
    """
    batch, length, width = query.shape
    split = [x.reshape(batch, -1, heads, x.shape[-1] // heads).transpose(0, 2, 1, 3) for x in (query, key, value)]
    scores = scale * split[0] @ split[1].transpose(0, 1, 3, 2)
    scores = np.where(np.broadcast_to(seen, (batch, length, key.shape[1]))[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed: Array = (weights / weights.sum(-1, keepdims=True)) @ split[2]
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, width)


def _close(actual: Array, expected: Array) -> bool:
    tolerance = HALF_TOLERANCE if actual.dtype == np.float16 else TOLERANCE
    return actual.shape == expected.shape and bool(np.max(np.abs(actual - expected)) < tolerance)
