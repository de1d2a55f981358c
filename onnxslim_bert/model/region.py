"""The nodes of one attention, which run alone on made-up rows of query, key and value."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.arrays import Array
from onnxslim_bert.graph.probe import attribute_text, constant, inputs_of, nodes_between, opsets_of, run_all
from onnxslim_bert.model.horizon import Horizon, horizon
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
LOUD = 64.0  # times a query of a probe, so that a key is hidden only where its score falls by hundreds
LOUD_HALF = 8.0  # the same where float16 would overflow
FURTHER = 12  # tokens by which a second probe is longer
MANY = 9  # token ids of a probe lie below
ALONE = "it does not run by itself"


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
        return list(lookups(self.graph))

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
        """The value of each of `targets`; `given` may hold more than the nodes read. Raises ValueError as `run_all`."""
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
            return f"{ALONE} in longer rows ({error})"
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


def lookups(graph: gs.Graph) -> Iterator[tuple[gs.Tensor, Array]]:
    """What embedding tables give for graph inputs, and the tables, [entries, width]."""
    tokens = {t.name for t in token_inputs(graph)}
    for node in graph.nodes:
        if node.op == "Gather" and node.inputs[1].name in tokens:
            table = constant(node.inputs[0])
            if table is not None and table.ndim > 1:
                yield node.outputs[0], table


def is_close(actual: Array, expected: Array) -> bool:
    """Whether results of an attention have one shape and differ by less than TOLERANCE (float16: HALF_TOLERANCE)."""
    tolerance = HALF_TOLERANCE if actual.dtype == np.float16 else TOLERANCE
    return actual.shape == expected.shape and bool(np.max(np.abs(actual - expected)) < tolerance)
