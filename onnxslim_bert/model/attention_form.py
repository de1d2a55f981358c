"""What the nodes between query, key, value and context compute, proven by running them."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, one_line
from onnxslim_bert.graph.probe import attribute_text, constant, inputs_of, nodes_between, opsets_of, run, run_all
from onnxslim_bert.model.horizon import Horizon, horizon
from onnxslim_bert.model.linear import Linear
from onnxslim_bert.model.token_masks import (
    TokenMask,
    as_choices,
    choice_inputs,
    has_fixed_length,
    probe_size,
    token_inputs,
    token_type,
)

TOLERANCE = 2e-5
HALF_TOLERANCE = 5e-3
LONGEST = 1100  # tokens of a probe
LOUD = 64.0  # times a query of a probe, so that a key is hidden only where its score falls by hundreds
LOUD_HALF = 8.0  # the same where float16 would overflow
FURTHER = 12  # tokens by which a second probe is longer
MEMORY = 300  # tokens from which a probe has one row
MANY = 9  # token ids of a probe lie below
FUSED_ATTENTION = ("MultiHeadAttention", "Attention")
ALONE = "it does not run by itself"
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


@dataclass(frozen=True)
class Region:
    """The nodes of one attention: they make `target` of `sources`, which are query, key and value.

    hidden: the layer's input, which some exporters read for its shape.
    widths: of query, key, value and hidden.
    masks: the tensors of which one may hide keys.
    first_token: the query has position 0 only.
    half: query, key and value are float16.
    """

    graph: gs.Graph
    sources: Sequence[gs.Tensor]
    hidden: gs.Tensor
    target: gs.Tensor
    widths: Sequence[int]
    masks: Sequence[TokenMask]
    first_token: bool = False
    half: bool = False

    @cached_property
    def nodes(self) -> list[gs.Node]:
        """The nodes of the region, in execution order."""
        return nodes_between(self._ends, self.target)

    @cached_property
    def read(self) -> list[gs.Tensor]:
        """What the nodes read from around them."""
        return inputs_of(self.nodes)

    @cached_property
    def candidates(self) -> list[TokenMask]:
        """The masks that the nodes read."""
        return [mask for mask in self.masks if any(mask.tensor is other for other in self.read)]

    @cached_property
    def looked_up(self) -> list[tuple[gs.Tensor, Array]]:
        """The results of embedding lookups, each with its table: some exporters read a shape there."""
        return list(_lookups(self.graph))

    @property
    def _ends(self) -> list[gs.Tensor]:
        made = [tensor for tensor, _ in self.looked_up]
        masks = [mask.tensor for mask in self.masks]
        return [*self.sources, self.hidden, *made, *token_inputs(self.graph), *choice_inputs(self.graph), *masks]

    @property
    def stranger(self) -> str | None:
        """The name of a tensor from elsewhere that the nodes read: no source, mask or input; None if there is none."""
        known = {id(tensor) for tensor in self._ends}
        return next((tensor.name for tensor in self.read if id(tensor) not in known), None)

    def feeds(self, batch: int, seq: int) -> dict[str, Array]:
        """Random values for what the nodes may read, in `batch` rows of `seq` tokens; computed masks are left out."""
        rng = np.random.default_rng(0)
        found: dict[str, Array] = {
            tensor.name: rng.standard_normal((batch, seq, width)).astype(np.float16 if self.half else np.float32)
            for tensor, width in zip([*self.sources, self.hidden], self.widths, strict=True)
        }
        if self.first_token:
            found[self.sources[0].name] = found[self.sources[0].name][:, :1]
        ids = {t.name: rng.integers(0, MANY, (batch, seq)).astype(token_type(t)) for t in token_inputs(self.graph)}
        for tensor in choice_inputs(self.graph):  # some exporters read their shape
            values = rng.integers(0, MANY, (batch, seq)).astype(token_type(tensor))
            ids[tensor.name] = as_choices(tensor, values)
        rows = {t.name: rng.normal(size=(batch, seq, *x.shape[1:])).astype(x.dtype) for t, x in self.looked_up}
        return ids | rows | found

    def run(self, feeds: Mapping[str, Array], hiding: TokenMask | None = None, holes: Array | None = None) -> Array:
        """The value of `target` for `feeds`, with the mask `hiding`, or every mask if None, set to `holes`.

        holes: [batch, seq], 0 where a key is hidden; other masks, and all without `holes`, are 1 everywhere.
        """
        return self.run_targets(self.given(feeds, hiding, holes), [self.target])[0]

    def given(
        self, feeds: Mapping[str, Array], hiding: TokenMask | None = None, holes: Array | None = None
    ) -> dict[str, Array]:
        """`feeds`, and the masks as `run` sets them."""
        opened = np.ones(feeds[self.hidden.name].shape[:2], np.int64)
        found = dict(feeds)
        for mask in self.candidates:
            hides = holes is not None and hiding in (None, mask)
            found[mask.tensor.name] = (holes if hides and holes is not None else opened).astype(mask.dtype)
        return found

    def also_reads(self, feeds: Mapping[str, Array], hiding: TokenMask | None) -> str | None:
        """The name of a candidate besides `hiding` that decides what comes out; None if there is none.

        Example: positions that turn query and key, which does not show where all tokens have the same.
        """
        given, rng = self.given(feeds), np.random.default_rng(3)
        plain = self.run_targets(given, [self.target])[0]
        for mask in self.candidates:
            if mask is not hiding:
                values = rng.integers(0, 2, given[mask.tensor.name].shape).astype(mask.dtype)
                if not is_close(self.run_targets({**given, mask.tensor.name: values}, [self.target])[0], plain):
                    return str(mask.tensor.name)
        return None

    def hides(self, feeds: Mapping[str, Array], mask: TokenMask, holes: Array) -> bool:
        """Whether no real token reads what query, key and value hold where `mask` is 0, however large scores get.

        A mask of -16, as log(mask + 1e-7) is, hides a key from small scores alone.
        """
        query, kept = self.sources[0].name, holes.astype(bool)
        loud = {**feeds, query: feeds[query] * np.asarray(LOUD_HALF if self.half else LOUD, feeds[query].dtype)}
        rng, other = np.random.default_rng(7), dict(loud)
        for tensor in [*self.sources, self.hidden]:
            old = loud[tensor.name]
            new = rng.standard_normal(old.shape).astype(old.dtype)
            other[tensor.name] = np.where(kept[:, : old.shape[1], None], old, new)
        before, after = (self.run(given, mask, holes) for given in (loud, other))
        real = kept[:, : before.shape[1], None]
        return is_close(np.where(real, after, 0), np.where(real, before, 0))

    def probes(self) -> Iterator[dict[str, Array]]:
        """What to run the region on: rows of two lengths, where it takes two, each without and with holes in them."""
        batch, seq = probe_size(self.graph)
        for length in [seq] if has_fixed_length(self.graph) else [seq, seq + FURTHER]:
            holes = (np.random.default_rng(1).random((batch, length)) < 0.6).astype(np.int64)
            holes[:, -1] = 1
            for hiding in (None, holes):
                yield self.given(self.feeds(batch, length), None, hiding)

    def run_targets(self, given: Mapping[str, Array], targets: Sequence[gs.Tensor]) -> list[Array]:
        """The value of each of `targets`; `given` may hold more than the nodes read."""
        read = {tensor.name for tensor in self.read}
        return run_all(self.nodes, {n: v for n, v in given.items() if n in read}, targets, opsets_of(self.graph))

    def moving(self) -> set[int]:
        """The ids of the tensors whose values depend on query, key or value; shapes alone do not count."""
        moving = {id(tensor) for tensor in self.sources}
        for node in self.nodes:
            if node.op not in ("Shape", "Size") and any(id(tensor) in moving for tensor in node.inputs):
                moving |= {id(tensor) for tensor in node.outputs}
        return moving

    def horizon(self) -> Horizon | str:
        """The largest numbers that positions meet in the region (`horizon.py`); or, in words, why they are unknown."""
        batch, seq = probe_size(self.graph)
        if has_fixed_length(self.graph):  # every row is as long as the probe
            return Horizon(0, 0)
        written = [tensor for node in self.nodes for tensor in node.outputs if not tensor.is_empty()]
        try:
            shorter, longer = (
                self.run_targets(self.given(self.feeds(batch, length)), written) for length in (seq, seq + 2)
            )
        except ValueError as error:
            return f"{ALONE} in longer rows ({one_line(error)[:160]})"
        same = {id(t) for t, one, other in zip(written, shorter, longer, strict=True) if np.array_equal(one, other)}
        return horizon(self.nodes, self.target, lambda tensor: id(tensor) not in same)

    def key(self, heads: int) -> str:
        """A digest of all that decides the form: equal for the layers of one encoder."""
        numbers: dict[int, int] = {}
        digest = hashlib.blake2b(repr((heads, *self.widths, self.first_token, self.half)).encode())
        digest.update(repr((probe_size(self.graph), [str(o) for o in opsets_of(self.graph)])).encode())
        taken = [*token_inputs(self.graph), *choice_inputs(self.graph)]
        inputs = {id(tensor) for tensor in [*taken, *(mask.tensor for mask in self.masks)]}
        for tensor in [*self.sources, self.hidden]:
            numbers.setdefault(id(tensor), len(numbers))

        def write(nodes: Sequence[gs.Node]) -> None:
            for node in nodes:
                digest.update(f"{node.domain} {node.op}".encode())
                for name, value in sorted(node.attrs.items()):
                    digest.update(name.encode())
                    if isinstance(value, gs.Graph):
                        write(value.nodes)
                    else:
                        digest.update(attribute_text(value).encode())
                for tensor in [*node.inputs, *node.outputs]:
                    if isinstance(tensor, gs.Constant):
                        values = np.ascontiguousarray(tensor.values)
                        digest.update(f"{values.dtype}{values.shape}".encode())
                        digest.update(values.tobytes())
                    elif tensor.is_empty() or id(tensor) in inputs:
                        digest.update(tensor.name.encode())
                    else:
                        digest.update(str(numbers.setdefault(id(tensor), len(numbers))).encode())
                    digest.update(b"|")

        write(self.nodes)
        digest.update(str(numbers.get(id(self.target))).encode())
        return digest.hexdigest()


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
            return f"{ALONE} ({one_line(error)[:160]})"
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
    feeds: dict[str, Array] = {t.name: np.zeros((batch, seq, *x.shape[1:]), x.dtype) for t, x in _lookups(graph)}
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


def _lookups(graph: gs.Graph) -> Iterator[tuple[gs.Tensor, Array]]:
    """What embedding tables give for graph inputs, and the tables."""
    tokens = {t.name for t in token_inputs(graph)}
    for node in graph.nodes:
        if node.op == "Gather" and node.inputs[1].name in tokens:
            table = constant(node.inputs[0])
            if table is not None and table.ndim > 1:
                yield node.outputs[0], table


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


def is_close(actual: Array, expected: Array) -> bool:
    """Whether two results of an attention agree, to what their precision allows."""
    tolerance = HALF_TOLERANCE if actual.dtype == np.float16 else TOLERANCE
    return actual.shape == expected.shape and bool(np.max(np.abs(actual - expected)) < tolerance)
