"""Keep the rows of the word table that texts use; the tokenizer stays as it is."""

import base64
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.contract import Change, Context, Pass, Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.model import Model
from onnxslim_bert.surgery import Builder

KEY = "onnxslim_bert.kept_tokens"  # metadata: the ids with a row of their own, which the map alone does not tell
AT_ONCE = 1024  # removed rows whose distances to all kept rows are held at once


@dataclass(frozen=True)
class TrimVocabulary(Pass):
    """Keep the rows of the word table whose tokens the calibration texts use, and put a map from ids to rows before it.

    ids [batch, seq] -> Gather(map [vocabulary]) -> Gather(table [kept, width]). Texts of kept tokens are answered bit
    for bit as before. A removed token reads the kept row nearest to its own: on SST-2 dev, 12,000 tokens kept, that
    moved logits by 13 %, the row of [UNK] by 15 %, the nearest by angle by 15 % and the removed rows' mean by 14 %.
    Special tokens and single characters are always kept. `rewrite_tokenizer` takes the map out again.

    tokens: rows that stay at most, the most frequent tokens first and then the lowest ids; 0 for no limit.
    min_count: occurrences in the calibration texts from which a token is kept; with 0 the vocabulary's own order,
    which is one of frequency in most, fills up `tokens`.
    """

    name: ClassVar[str] = "trim-vocabulary"
    measures: ClassVar[bool] = True
    tokens: int = 0
    min_count: int = 1

    def __post_init__(self) -> None:
        for option in ("tokens", "min_count"):
            if getattr(self, option) < 0:
                raise PassError(f"trim-vocabulary: {option}={getattr(self, option)} is negative; give 0 or more")

    def wants(self, model: Model) -> Iterable[Want]:
        ids = model.encoder.embeddings.ids
        return [Want(ids, "counts")] if ids else []

    def apply(self, model: Model, ctx: Context) -> Change:
        embeddings = model.encoder.embeddings
        word, ids, vocabulary = embeddings.word, embeddings.ids, embeddings.vocabulary
        if word is None or ids is None or vocabulary is None:
            return Change(0, "no word embedding was found")
        if embeddings.map is not None:
            return Change(0, "the vocabulary is trimmed already; start from the whole one for another size")
        _check_table(model, word)
        protected = {number for number in ctx.trials.protected_ids if number < vocabulary}
        counts = _resized(ctx.stats[Want(ids, "counts")], vocabulary)
        kept = choose_tokens(counts, protected, self.tokens, self.min_count)
        if len(kept) == vocabulary:
            return Change(0, f"all {vocabulary} tokens are kept")
        held_back = _resized(ctx.trials.held_back_counts(ids), vocabulary)
        missing = 1 - held_back[kept].sum() / max(held_back.sum(), 1)
        _read_through(model, word, nearest_rows(model.array(word), kept), kept)
        note = f"{len(kept)} of {vocabulary} tokens kept; {missing:.2%} of the tokens in held-back texts are not"
        unknown = "" if protected else "; without a tokenizer special tokens are kept only where they occur"
        return Change(vocabulary - len(kept), note + unknown, {"kept": len(kept), "out_of_vocabulary": missing})


def choose_tokens(counts: Array, protected: Collection[int], tokens: int, min_count: int) -> Array:
    """The ids to keep, ascending: all that are protected, then the most frequent, then the lowest.

    counts [vocabulary]. tokens: how many at most, 0 for no limit. min_count: of an id that is not protected.
    """
    ids = np.arange(len(counts))
    is_protected = np.isin(ids, list(protected))
    if tokens and is_protected.sum() > tokens:
        raise PassError(
            f"trim-vocabulary: tokens={tokens} has no room for the {is_protected.sum()} special tokens and single "
            "characters; give at least that many"
        )
    order = np.lexsort((ids, -counts, ~is_protected))
    order = order[is_protected[order] | (counts[order] >= min_count)]
    return np.sort(order[: tokens or None])


def nearest_rows(table: Array, kept: Array) -> Array:
    """For every id the row of table[kept] that is its own or, in Euclidean distance, nearest to it, int32 [vocabulary].

    table [vocabulary, width], kept: ids, ascending.
    """
    rows = np.empty(len(table), np.int32)
    rows[kept] = np.arange(len(kept))
    candidates = table[kept]
    half_squares = np.square(candidates).sum(1) / 2
    removed = np.setdiff1d(np.arange(len(table)), kept)
    for start in range(0, len(removed), AT_ONCE):
        chunk = removed[start : start + AT_ONCE]
        rows[chunk] = (table[chunk] @ candidates.T - half_squares).argmax(1)
    return rows


def kept_tokens(model: Model) -> Array:
    """The ids that have a row of their own in a trimmed model, ascending. Raises PassError when it is not trimmed."""
    vocabulary = model.encoder.embeddings.vocabulary
    stored = next((entry.value for entry in model.header.metadata_props if entry.key == KEY), None)
    if model.encoder.embeddings.map is None or stored is None:
        raise PassError("the model reads its word table without a map; run trim-vocabulary first")
    bits = np.frombuffer(base64.b64decode(stored), np.uint8)
    return np.flatnonzero(np.unpackbits(bits, count=vocabulary))


def forget_kept_tokens(model: Model) -> None:
    """Drop what `kept_tokens` reads."""
    others = [entry for entry in model.header.metadata_props if entry.key != KEY]
    del model.header.metadata_props[:]
    model.header.metadata_props.extend(others)


def _check_table(model: Model, word: str) -> None:
    """Raise PassError when the rows of the table `word` cannot go."""
    table = model.constants()[word]
    if table.values.dtype != np.float32:
        raise PassError(f"the word table {word!r} is {table.values.dtype}; start from the float32 model")
    other = next((node for node in table.outputs if node.op != "Gather" or node.inputs[0] is not table), None)
    if other is not None:
        raise PassError(
            f"the word table {word!r} is also what node {other.name!r} ({other.op}) answers with, one number for each "
            "token; it cannot lose rows"
        )


def _read_through(model: Model, word: str, rows: Array, kept: Array) -> None:
    """Keep the rows `kept` of the table `word`, and let its lookups read them through the map `rows`."""
    build = Builder(model.graph, "vocabulary")
    mapping = build.constant("map", rows)
    for node in list(model.constants()[word].outputs):
        node.inputs[1] = build.node("Gather", "rows", [mapping, node.inputs[1]], axis=0)
    model.replace(word, model.array(word)[kept])
    forget_kept_tokens(model)
    bits = np.packbits(np.isin(np.arange(len(rows)), kept))
    model.header.metadata_props.add(key=KEY, value=base64.b64encode(bits.tobytes()).decode())
    model.changed()


def _resized(counts: Array, vocabulary: int) -> Array:
    """Counts of ids with one for every token of the vocabulary."""
    return np.pad(counts, (0, max(vocabulary - len(counts), 0)))[:vocabulary]
