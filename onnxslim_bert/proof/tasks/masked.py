"""Words behind masks: whether a masked language model finds them, and how likely it takes them to be.

Of each text up to 4 tokens are masked, one at a time, as for the pseudo-log-likelihood of Salazar et al. 2020
(https://arxiv.org/abs/1910.14659), which masks all of them.
"""

from dataclasses import replace

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.tokenizer import PlacedRow, Tokenizer
from onnxslim_bert.errors import DataError
from onnxslim_bert.proof.outputs import Outputs

MOST = 4  # tokens of a text that are masked, evenly apart
WIDTH = 3  # numbers kept of an answer: log p of the right token, how many are likelier, and the likeliest token


def masked_rows(dataset: Dataset, tokenizer: Tokenizer, max_length: int) -> tuple[Dataset, Array]:
    """The rows of each text, with one token masked in each, and the text of each row, [rows fed].

    `labels` are the ids behind the masks. Raises DataError for a tokenizer without a mask, or texts without tokens.
    """
    if tokenizer.mask_id is None:
        raise DataError("task 'fill-mask' needs a tokenizer with a mask token, [MASK] or <mask>: this one has none")
    rows: list[PlacedRow] = []
    right: list[int] = []
    owner: list[int] = []
    for number, row in enumerate(tokenizer.encode_places(dataset.texts, max_length)):
        words = [place for place, span in enumerate(row.places) if span is not None]
        for place in evenly(words):
            ids = [*row.ids[:place], tokenizer.mask_id, *row.ids[place + 1 :]]
            rows.append(
                PlacedRow(ids, row.type_ids, row.places, [0 if each == place else -1 for each in range(len(ids))])
            )
            right.append(row.ids[place])
            owner.append(number)
    if len(set(owner)) < len(dataset):
        missing = min(set(range(len(dataset))) - set(owner))
        raise DataError(f"'{dataset.name}', row {missing + 1}: no tokens: needed a text that is not empty")
    fed = replace(dataset.take(owner), form="windows", encoded=tuple(rows), labels=np.array(right, np.int64))
    return fed, np.array(owner)


def evenly(places: list[int]) -> list[int]:
    """At most MOST of `places`, in the middles of as many equal parts."""
    count = min(MOST, len(places))
    return [places[int((part + 0.5) * len(places) / count)] for part in range(count)]


def found(logits: Array, right: Array) -> Array:
    """What is kept of each answer, float32 [masks, WIDTH]; logits [masks, vocabulary], right [masks]; NaN stays NaN."""
    if right.max(initial=0) >= logits.shape[1]:
        raise DataError(
            f"task 'fill-mask' needs logits [rows, tokens, vocabulary]: the model answers {logits.shape[1]} numbers a "
            f"token, and a token's id is {right.max()}"
        )
    values = logits.astype(np.float64)
    own = values[np.arange(len(values)), right][:, None]
    top = values.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        likely = own - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
        before = (values > own).sum(axis=1, keepdims=True)
    kept = np.concatenate([likely, before, values.argmax(axis=1)[:, None]], axis=1)
    kept[~np.isfinite(values).all(axis=1)] = np.nan
    return kept.astype(np.float32)


def counts(metric: str, outputs: Outputs, rows: int) -> Array:
    """What each text adds to `metric`, [texts, 2]: hits or log p, and masks; what is not finite is never found."""
    assert outputs.owner is not None
    likely, before = (outputs.values[:, place].astype(np.float64) for place in (0, 1))
    if metric == "pseudo-perplexity":
        worst = np.nanmin(likely, initial=0.0)
        each = np.where(outputs.finite, likely, worst)
    else:
        each = np.where(outputs.finite, before, np.inf) < int(metric.removeprefix("top-"))
    sums = [np.bincount(outputs.owner, weights=part, minlength=rows) for part in (each, np.ones(len(each)))]
    return np.stack(sums, axis=1)
