"""The rows of a job as model inputs: calibration batches, trials for passes that measure, the damage of each step."""

from dataclasses import replace
from functools import partial

import numpy as np

from onnxslim_bert.calibration.batches import Batch, Batches
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.hard_rows import SHORT, Counts, hard_rows, padded_in_front
from onnxslim_bert.calibration.scripts import script_tokens
from onnxslim_bert.calibration.splitting import holdout, sample
from onnxslim_bert.calibration.tokenizer import PlacedRow, Tokenizer
from onnxslim_bert.calibration.vocabulary import count_tokens, protected_ids
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.job.data import Data
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.positions import most_tokens
from onnxslim_bert.model.session import model_session
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.proof.evaluation import pairs_are_apart
from onnxslim_bert.recipes.step_damage import StepDamage
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.trials import Sampled, Trials

CALIBRATION_BATCH = 16
FEWEST_TO_SPLIT = 16  # rows below which choices are judged on the rows that they were fitted on
HELD_BACK = 0.125  # share of the calibration rows that nothing is fitted to: choices are judged on them
HARD = Counts(64, 32, 8)  # hard rows beside those that statistics are taken of: many short ones cost next to nothing
HARD_HELD_BACK = Counts(32, 16, 8)  # beside those that choices are judged on: the full ones take most of the time
STEP = 3  # one of so many short hard rows is tried behind padding, too
WATCHED = 32  # rows on which the damage of each step is measured

Shape = tuple[int | None, int | None]  # batch and length; None is any
ANY_SHAPE: Shape = (None, None)


def canonical_form(model: Model) -> Model:
    """A copy of `model` after `canonicalize`, in which the encoder can be found; its answers are the same."""
    copy = model.clone()
    Canonicalize().apply(copy, Context())  # held to its promises when the recipe itself runs
    return copy


def fixed_shape(model: Model) -> Shape:
    """The batch and the length that the graph's inputs fix; None where they are open."""
    return fixed_axes(flat_shape(tensor.shape or (), tensor.dtype) for tensor in model.graph.inputs)


def fitting_length(model: Model, max_length: int) -> int:
    """`max_length`, or as many tokens a row as the graph's fixed length or its positions serve.

    model: canonical. Raises ModelError for a graph that not even int8 serves.
    """
    return min(max_length, fixed_shape(model)[1] or most_tokens(model) or max_length)


def fitted(working: Working, canonical: Model) -> Working:
    """`working` with no more tokens a row than the model serves.

    Raises DataError when the tokenizer has tokens that the word embedding has no row for, ModelError for a graph that
    not even int8 serves.
    """
    if working.tokenizer is not None:
        working.tokenizer.check_fits(word_rows(canonical))
    return replace(working, max_length=fitting_length(canonical, working.max_length))


def word_rows(model: Model) -> int | None:
    """Ids that the word embedding takes; None when it was not found."""
    return embeddings_of(model).vocabulary


def make_trials(canonical: Model, data: Data, working: Working, *, split: bool, shape: Shape = ANY_SHAPE) -> Trials:
    """Trials for the passes of a recipe, on calibration rows. Raises DataError when there are too few rows.

    canonical: the source in its canonical form; damage is the distance from its answers. split: hold rows back, to
    judge choices on (`_apart`). Harder rows are made of both. shape: the batch and the length that a later pass fixes.
    Example: split, 256 rows: statistics come from 224, damage from 32.
    """
    assert data.calibration is not None
    fitting = held_back = data.calibration
    if split:
        fitting, held_back = _apart(fitting, _least(canonical, shape), working.seed)
    usual, judged = (calibration_batches(canonical, rows, working, shape) for rows in (fitting, held_back))
    hard = (harder(canonical, usual, working, shape, HARD), harder(canonical, judged, working, shape, HARD_HELD_BACK))
    reader, original = working.tokenizer, canonical.clone()
    pieces = reader.file if reader is not None else None
    trials = Trials(
        original,
        usual,
        judged,
        hard=hard,
        protected_ids=protected_ids(pieces) if pieces else frozenset(),
        corpus_counts=count_tokens(data.corpus, reader) if data.corpus is not None and reader is not None else None,
        corpus=None if data.corpus is None else partial(drawn, original, data.corpus, working, shape),
        working=working,
    )
    if pieces:
        trials.scripts = partial(script_tokens, pieces)
    return trials


def _apart(dataset: Dataset, least: int, seed: int) -> tuple[Dataset, Dataset]:
    """The rows to fit to and those to judge on, HELD_BACK of them.

    All serve both where they are fewer than FEWEST_TO_SPLIT, or those that are held back fewer than `least`, a batch.
    """
    if len(dataset) >= FEWEST_TO_SPLIT:
        fitting, judged = holdout(dataset, HELD_BACK, seed)
        if len(judged) >= least:
            return fitting, judged
    return dataset, dataset


def _least(model: Model, shape: Shape) -> int:
    """The rows of a batch that the graph or `shape` fixes; else 1."""
    return fixed_shape(model)[0] or shape[0] or 1


def harder(model: Model, rows: Batches, working: Working, shape: Shape, counts: Counts) -> list[Batch]:
    """Hard rows made of `rows` (`hard_rows`), as batches; none where an input of the model has no role.

    Some short ones stand behind padding, where the model has a mask. Rows made for other `counts` have other ids.
    """
    reader = working.tokenizer or Tokenizer(1, 0, working.max_length, lambda *_: [])
    plain = Dataset("hard rows", "", (("",),), None, None)
    try:
        roles = roles_for(model, plain, reader, threads=working.threads)
    except DataError:  # of ready inputs
        return []
    names = {each.role: name for name, each in roles.items()}
    if "ids" not in names or len(roles) < len(model.graph.inputs):
        return []
    taken = [
        PlacedRow(ids[real].tolist(), [], ())
        for batch in rows
        for ids, real in zip(batch.feeds[names["ids"]], batch.mask, strict=True)
        if real.any()
    ]
    if not taken:
        return []
    known = np.arange(word_rows(model) or 1 + max(max(row.ids) for row in taken))
    table = embeddings_of(model).token_type
    longest = shape[1] or fixed_shape(model)[1] or working.max_length
    made = hard_rows(
        taken,
        known[known != reader.pad_id] if len(known) > 1 else known,
        counts,
        longest=longest,
        types=len(model.array(table)) if table is not None and "types" in names else 1,
        seed=counts.replaced,
    )

    def batches(part: list[PlacedRow], shape: Shape) -> list[Batch]:
        size = shape[0] or fixed_shape(model)[0] or 1
        part = [part[i % len(part)] for i in range(-(-len(part) // size) * size)]
        dataset = replace(plain, texts=(("",),) * len(part), form="windows", encoded=tuple(part))
        return list(calibration_batches(model, dataset, replace(working, tokenizer=reader), shape)) if part else []

    full, others, short = (
        [row for row in made if low < len(row.ids) <= high]
        for low, high in ((longest - 1, longest), (0, longest - 1), (0, max(SHORT)))
    )
    found = batches(full, shape) + batches(others, shape)  # apart: short rows are not padded to the length of full ones
    if "mask" in names:
        behind = batches(short[::STEP], (shape[0], shape[1] or min(longest, max(SHORT) + 1)))
        found += answered(model, [padded_in_front(batch) for batch in behind], working)
    return found


def answered(model: Model, batches: list[Batch], working: Working) -> list[Batch]:
    """Those of `batches` to which `model` has answers that can be judged: numbers, and some for each token.

    An answer for a whole row may be read off its first token, which padding in front has moved.
    """
    session = model_session(model, threads=working.threads)
    found = []
    for batch in batches:
        outputs = run(session, batch.feeds)
        if all(
            x.shape[:2] == batch.mask.shape and np.isfinite(x[batch.mask]).all() for x in outputs if x.dtype.kind == "f"
        ):
            found.append(batch)
    return found


def drawn(model: Model, corpus: Dataset, working: Working, shape: Shape, most: int) -> Sampled:
    """At most `most` rows of `corpus` as the inputs of `model`, with their labels if they have some."""
    texts = sample(corpus, most, working.seed).alone()
    return Sampled(calibration_batches(model, texts, working, shape), texts.labels)


def make_step_damage(
    source: Model, canonical: Model, data: Data, working: Working, shape: Shape = ANY_SHAPE
) -> StepDamage | None:
    """What measures the damage after each step of a recipe against `source`, on WATCHED rows or the fixed batch.

    The rows are some of those that trials hold back from calibration; without calibration, evaluation rows. None
    where there are no rows, or fewer than the batch that the graph or `shape` fixes.
    """
    dataset = data.calibration if data.calibration is not None else data.evaluation
    if dataset is None:
        return None
    least = _least(canonical, shape)
    if dataset is data.calibration:
        dataset = _apart(dataset, least, working.seed)[1]
    if len(dataset) < least:
        return None
    few = dataset.take(range(min(len(dataset), max(WATCHED, least))))
    return StepDamage(source, calibration_batches(canonical, few, working, shape), threads=working.threads)


def calibration_batches(model: Model, dataset: Dataset, working: Working, shape: Shape = ANY_SHAPE) -> Batches:
    """`dataset` as batches of the model's inputs; size and length are those that the graph or `shape` fixes, if any.

    Rows that do not fill a last batch of a fixed size are left out. Raises DataError when no row is left.
    """
    dataset = dataset.alone()
    dataset = dataset.apart() if _are_apart(model, dataset, working) else dataset
    rows, length = (fixed or later for fixed, later in zip(fixed_shape(model), shape, strict=True))
    if rows:  # no batch may be smaller
        dataset = dataset.take(range(len(dataset) - len(dataset) % rows))
    if not len(dataset):
        raise _too_few(dataset, rows or 1)
    return Batches(
        dataset,
        {tensor.name: np.dtype(tensor.dtype) for tensor in model.graph.inputs},
        roles_for(model, dataset, working.tokenizer, threads=working.threads),
        working,
        batch_size=rows or CALIBRATION_BATCH,
        fixed_length=length,
        vocab_rows=word_rows(model),
    )


def check_enough(model: Model, dataset: Dataset) -> None:
    """Raise DataError when the graph fixes a larger batch than the rows fill, the texts of a pair apart: before a run.

    To run such a batch only to find its inputs' roles takes gigabytes where thousands of rows are fixed.
    """
    rows = fixed_shape(model)[0] or 1
    if rows > len(dataset) * (1 + dataset.is_pairs):
        raise _too_few(dataset, rows)


def _too_few(dataset: Dataset, rows: int) -> DataError:
    return DataError(f"'{dataset.name}': too few calibration rows; give at least {rows}, see --rows")


def _are_apart(model: Model, dataset: Dataset, working: Working) -> bool:
    """Whether the two texts of a pair are fed as two rows, as a model of sentence embeddings takes them."""
    if not dataset.is_pairs or model.path is None or not model.path.is_file() or working.tokenizer is None:
        return False
    return pairs_are_apart(model.path, dataset, working)
