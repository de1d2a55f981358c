"""The texts of a distillation: drawn, parted into those trained on and those held back, and enriched by copies."""

import hashlib
from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.distillation.choice import class_logits, longer_rather, surest
from onnxslim_bert.rewriting.distillation.enrich import enriched
from onnxslim_bert.rewriting.distillation.plan import DistillationPlan
from onnxslim_bert.rewriting.distillation.texts import Row, Texts, padding_of, rows_of
from onnxslim_bert.rewriting.trials import Trials

HELD_BACK = 0.1  # of the texts, at most MOST_HELD_BACK
MOST_HELD_BACK = 512
FEWEST = 16  # texts
POOL = 4  # times as many texts as are wanted are looked at, where there are so many


@dataclass(frozen=True)
class Material:
    """texts: to train on, the first `own` of them as they are and then enriched copies. labels: of the first texts."""

    texts: Texts
    own: int
    held_back: Texts
    labels: Array | None

    @property
    def sha256(self) -> str:
        """Over everything that is trained on and judged by."""
        hashed = hashlib.sha256(b"" if self.labels is None else self.labels.tobytes())
        for row in (*self.texts.rows, *self.held_back.rows):
            hashed.update(len(row.key).to_bytes(8, "little") + row.key)
        return hashed.hexdigest()


def gather(student: Model, trials: Trials, plan: DistillationPlan) -> Material:
    """The texts of the plan, no two alike, in the batches that `student` takes.

    Where there are more than wanted, longer ones are drawn more often, in proportion to their tokens: what is to be
    answered is mostly longer than the phrases that corpora like SST-2 are full of; with `plan.balance` by what the
    teacher answers instead (`surest`). Those held back are none of those trained on, and half of them are copies: a
    teacher is surer of texts that it was trained on than of others and of copies. Rows by which other passes judge what
    they choose (`trials.held_back`) are left out. Raises PassError for fewer than FEWEST texts.
    """
    wanted = (round(plan.texts * (1 - plan.copies)) if plan.replace else plan.texts) + MOST_HELD_BACK
    sampled = trials.texts(POOL * wanted)
    batches = list(sampled.rows)
    order = np.concatenate([batch.rows for batch in batches])
    found = {row.key: (row, place) for row, place in zip(rows_of(batches), order, strict=True)}
    judged = {row.key for row in rows_of(trials.held_back)}
    every = [pair for key, pair in found.items() if key not in judged]
    if len(every) < FEWEST:
        raise PassError(
            f"distill: {len(every)} different texts to learn from; needed {FEWEST}: --corpus or more --rows"
        )
    rng = np.random.default_rng(plan.seed)
    if plan.balance:
        logits = dict(zip(order.tolist(), class_logits(trials.original, batches, trials.threads), strict=True))
        every = [every[i] for i in surest(np.array([logits[place] for _, place in every]), wanted)]
    elif len(every) > wanted:
        lengths = np.array([row.real.sum() for row, _ in every])
        every = [every[i] for i in longer_rather(lengths, wanted, rng)]
    every = [every[i] for i in rng.permutation(len(every))]
    count = min(round(HELD_BACK * len(every)), MOST_HELD_BACK)
    held, own = ([row for row, _ in part] for part in (every[:count], every[count:]))
    labels = None if sampled.labels is None else sampled.labels[[place for _, place in every[count:]]]
    copies = list[Row]()
    if plan.replace:
        copies = _copies(trials, own, max(plan.texts - len(own), 0), plan, rng)
        unseen = held[count // 2 :]
        held = held[: count // 2] + (_copies(trials, unseen, len(unseen), plan, rng) or unseen)

    padding = padding_of(batches)
    size, length = fixed_axes(flat_shape(tensor.shape or (), tensor.dtype) for tensor in student.graph.inputs)
    texts, held_back = (
        Texts(rows, padding, size or plan.batch, fixed=size is not None, length=length)
        for rows in ([*own, *copies], held)
    )
    return Material(texts, len(own), held_back, labels)


def _copies(trials: Trials, rows: list[Row], count: int, plan: DistillationPlan, rng: np.random.Generator) -> list[Row]:
    """So many enriched copies of `rows`; none where no input holds tokens, or nothing can be replaced."""
    model = trials.original
    embeddings = model.encoder.embeddings
    if embeddings.ids is None or embeddings.ids not in rows[0].feeds:
        return []
    table = None if embeddings.word is None else model.array(embeddings.word)
    if table is not None and embeddings.map is not None:
        table = table[model.array(embeddings.map)]
    return enriched(rows, count, embeddings.ids, plan.replace, plan.join, table, trials.protected_ids, rng)
