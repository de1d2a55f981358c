"""Measurements on calibration rows, for passes that decide by trying things out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.cache import Cache, key_of
from onnxslim_bert.calibration.collect import Rows, collect, collect_once, rows_sha256
from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.progress import Progress
from onnxslim_bert.rewriting.answers import by_row, float_outputs
from onnxslim_bert.rewriting.exits.whole_batch import whole_batch


@dataclass(frozen=True)
class Sampled:
    """Texts to learn from. labels: the class or score of each row (`Batch.rows`); None where they have none."""

    rows: Rows
    labels: Array | None = None


@dataclass(frozen=True)
class Unfinished:
    """The state of one piece of long work, in a store of such states."""

    store: Cache
    key: str

    def load(self) -> dict[str, Array] | None:
        """The last state that was kept; None when there is none."""
        return self.store.get(self.key)

    def keep(self, state: Mapping[str, Array]) -> None:
        """Keep `state` in place of the last one."""
        self.store.put(self.key, state)


USUAL = Working()
NONE_HARD: tuple[Rows, Rows] = ([], [])


class Trials:
    """Runs models on calibration rows, for statistics and for the damage that a change does.

    original: the model as it was given; damage is the distance from its answers.
    fitting: rows that statistics are collected on.
    held_back: other rows, on which choices are judged.
    hard: harder rows (`hard_rows`) made of the fitting ones, for statistics that are wanted `hard`; and made of the
        held-back ones, for `row_errors`. Both may be empty.
    protected_ids: token ids that a vocabulary must keep.
    corpus_counts: how often each id occurs in the corpus, texts beside the calibration rows; a pass that wants counts
        of ids gets these. None without a corpus.
    corpus: a function that draws at most so many texts of the corpus; None without one.
    working: threads, a cache of what was measured before, and where progress is reported.

    scripts, to be set where the tokenizer is known, gives the ids of its tokens of several letters by their script.
    """

    def __init__(
        self,
        original: Model,
        fitting: Rows,
        held_back: Rows,
        *,
        hard: tuple[Rows, Rows] = NONE_HARD,
        protected_ids: frozenset[int] = frozenset(),
        corpus_counts: Array | None = None,
        corpus: Callable[[int], Sampled] | None = None,
        working: Working = USUAL,
    ) -> None:
        self.original = original
        self.fitting = fitting
        self.held_back = held_back
        self.hard = hard
        self.protected_ids = protected_ids
        self.scripts: Callable[[], Mapping[str, frozenset[int]]] = dict
        self.corpus_counts = corpus_counts
        self.corpus = corpus
        self.threads = working.threads
        self.cache = working.cache
        self._unfinished = working.unfinished
        self.progress: Progress = working.progress or (lambda *_: None)

    def moved(self, fitting: Rows, held_back: Rows) -> "Trials":
        """The same trials for the later part of a model, on rows whose feeds are what the earlier part computes."""
        there = self.unshared()
        there.__dict__["_every_answer"] = self._answers
        there.fitting, there.held_back, there.hard = fitting, held_back, NONE_HARD
        return there

    def towards(self, original: Model) -> "Trials":
        """The same trials, with damage as the distance from the answers of `original`, another model."""
        there = copy(self)
        there.original = original
        for known in ("_answers", "_every_answer", "_sha256"):
            there.__dict__.pop(known, None)
        return there

    def unshared(self) -> "Trials":
        """The same trials without the cache, for a model that exists in this run only."""
        there = copy(self)
        there.cache = None
        return there

    def collect(
        self, model: Model, wants: Iterable[Want], task: str = "calibrating", *, held_back: bool = False
    ) -> dict[Want, Any]:
        """The statistics `wants` of `model`, on the fitting rows or with `held_back` on the held-back rows.

        Those that are wanted `hard` are taken of the hard rows, too. task: what progress calls it. Counts of ids are
        those of the corpus, where there is one, except with `held_back`. Behind exits (`early-exit`) they are of all
        rows, as if none had left.
        """
        model = whole_batch(model)
        rows = self.held_back if held_back else self.fitting
        every, known = list(wants), dict[Want, Any]()
        if self.corpus_counts is not None and not held_back:
            known = {want: self.corpus_counts for want in every if want.kind == "counts"}
        missing = [want for want in every if want not in known]
        hard = self.hard[held_back] if any(want.hard for want in missing) else []
        progress = partial(self.progress, task)
        if self.cache is None or not missing:
            return known | collect(model, missing, rows, progress, hard=hard, threads=self.threads)
        content = self._held_back_sha256 if held_back else self._fitting_sha256
        return known | collect_once(
            self.cache,
            model,
            missing,
            rows,
            progress,
            hard=hard,
            rows_sha256=content + (rows_sha256(hard) if hard else ""),
            threads=self.threads,
        )

    def once(
        self, kind: str, model: Model, measure: Callable[[], dict[str, Array]], **content: Any
    ) -> dict[str, Array]:
        """What `measure()` returns, from the cache where it was measured before, else measured now and put there.

        It was measured before if kind, model, rows, original, threads and content are the same. content: whatever else
        decides the result, as JSON can hold it.
        """
        if self.cache is None:
            return measure()
        key = key_of(kind, model=model.fingerprint(), threads=self.threads, trials=self._sha256, **content)
        held = self.cache.get(key)
        if held is None:
            held = measure()
            self.cache.put(key, held)
        return held

    def unfinished(self, kind: str, model: Model, **content: Any) -> "Unfinished | None":
        """Where long work on `model` keeps its state, to go on from it in a later run; None where nothing is kept.

        It is taken up again only where kind, model, rows, original, threads and content are the same.
        """
        if self._unfinished is None:
            return None
        key = key_of(kind, model=model.fingerprint(), threads=self.threads, trials=self._sha256, **content)
        return Unfinished(self._unfinished, key)

    def texts(self, most: int) -> Sampled:
        """Texts to learn from: at most `most` of the corpus, or without a corpus all fitting rows."""
        return self.corpus(most) if self.corpus is not None else Sampled(self.fitting)

    def held_back_counts(self, tensor: str) -> Array:
        """How often each id of the graph input `tensor` occurs in the held-back rows, [the largest id seen + 1]."""
        want = Want(tensor, "counts")
        counts: Array = self.collect(self.original, [want], held_back=True)[want]
        return counts

    def damage(self, model: Model) -> float:
        """How far the float outputs of `model` on held-back rows are from the original's: |difference| / |original|.

        0 when they are equal; 0.1 when the difference is a tenth of the original's outputs in the Euclidean norm.
        Raises ModelError when the original's are not finite.
        """
        return self.damages(model, [{}])[0]

    def damages(self, model: Model, variants: Sequence[Mapping[str, Array]]) -> list[float]:
        """The damage of each variant of `model`, all in one session.

        A variant gives constants other values of the same shape, by name. Example: [{}, {"w": zeros}] gives the damage
        of `model` and that of `model` with the constant w zeroed.
        """
        if not variants:
            return []
        exact_answers = self._answers  # before another session holds its weights
        given = sorted({name for variant in variants for name in variant})
        own = {name: np.ascontiguousarray(model.array(name)) for name in given}
        session = model_session(model, inputs=given, threads=self.threads)
        squares = np.zeros(len(variants))
        for batch, exact in zip(self.held_back, exact_answers, strict=True):
            for i, variant in enumerate(variants):
                answers = float_outputs(run(session, batch.feeds | own | dict(variant)), batch)
                squares[i] += sum(
                    np.square(ours - theirs).sum(dtype=np.float64) for ours, theirs in zip(answers, exact, strict=True)
                )
        size = sum(np.square(value).sum(dtype=np.float64) for exact in exact_answers for value in exact)
        return [float(x) for x in np.sqrt(squares / max(size, 1e-30))]

    def row_errors(self, model: Model) -> Array:
        """How far `model` is from the original on each held-back row, hard ones included, [rows].

        The squared difference of the float outputs, as a share of the original's square on average: per element, so
        that a row of two tokens counts as much as one of a hundred. Example: 0.01 where the outputs are off by a tenth
        of their usual size; half of it is, about, what the cosine of the row is short of 1.
        """
        exact_answers, batches = self._every_answer, [*self.held_back, *self.hard[1]]
        session = model_session(model, threads=self.threads, many_runs=True)
        rows: list[list[Array]] = []
        sizes: list[Array] = []
        for batch, exact in zip(batches, exact_answers, strict=True):
            answers = float_outputs(run(session, batch.feeds), batch)
            rows.append([by_row(ours - theirs, batch) for ours, theirs in zip(answers, exact, strict=True)])
            sizes.append(np.array([by_row(theirs, batch).sum() for theirs in exact]))
        usual = np.sum(sizes, axis=0) / sum(len(batch.rows) for batch in batches)
        errors: Array = np.concatenate(
            [np.mean([e / max(u, 1e-30) for e, u in zip(one, usual, strict=True)], 0) for one in rows]
        )
        return errors

    def error_a_row(self, model: Model) -> float:
        """The root of the mean of `row_errors`: 0.1 where the answers are off by a tenth of their size, row by row."""
        return float(np.sqrt(self.row_errors(model).mean()))

    @cached_property
    def _fitting_sha256(self) -> str:
        return rows_sha256(self.fitting)

    @cached_property
    def _held_back_sha256(self) -> str:
        return rows_sha256(self.held_back)

    @cached_property
    def _sha256(self) -> list[str]:
        hard = [rows_sha256(rows) for rows in self.hard]
        return [self.original.fingerprint(), self._fitting_sha256, self._held_back_sha256, *hard]

    @cached_property
    def _answers(self) -> list[list[Array]]:
        return self._every_answer[: len(self.held_back)]

    @cached_property
    def _every_answer(self) -> list[list[Array]]:
        """The original's answers to the held-back rows, then to the hard ones. Raises ModelError for one not finite."""
        session = model_session(self.original, threads=self.threads, many_runs=True)
        found = [float_outputs(run(session, batch.feeds), batch) for batch in (*self.held_back, *self.hard[1])]
        if not all(np.isfinite(answer).all() for answers in found for answer in answers):
            raise ModelError("the model's answers are not finite on calibration rows; check its weights")
        return found
