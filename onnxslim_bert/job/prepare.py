"""What is checked and made ready before a model is rewritten: files, data, trials."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.datasets import Dataset, holdout
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.vocabulary import count_tokens, protected_ids
from onnxslim_bert.errors import DataError, OutputError
from onnxslim_bert.graph.files import check_output, model_files
from onnxslim_bert.graph.signature import fixed_axes
from onnxslim_bert.job.options import Options
from onnxslim_bert.model.dense import embeddings_of
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.positions import most_tokens
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.comparison import task_metrics
from onnxslim_bert.proof.evaluate_once import evaluate_once
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.watch import Watch
from onnxslim_bert.rewriting.trials import Trials

CALIBRATION_BATCH = 16
FEWEST_TO_SPLIT = 16  # rows below which choices are judged on the rows that they were fitted on
HELD_BACK = 0.125  # of the calibration rows: choices are judged on them
WATCHED = 32  # rows on which the damage of each step is seen

Shape = tuple[int | None, int | None]  # batch and length; None is any
ANY_SHAPE: Shape = (None, None)


def check_outputs(source: Path, outputs: Sequence[Path], *, overwrite: bool, in_place: bool) -> None:
    """Raise OutputError when an output cannot be written, or holds the source's data and was not asked to go."""
    files = model_files(source)
    if len(set(outputs)) < len(outputs):
        raise OutputError(f"{outputs[0]} is the name of its own report; give one that ends in .onnx")
    for output in outputs:
        replaces = in_place and output == source
        check_output(output, overwrite=overwrite or replaces, inputs=files[1:] if replaces else files)


def check_calibration(options: Options, *, given: bool) -> None:
    """Raise DataError when calibration rows are missing, or would do nothing."""
    if options.mode == "static" and not given:
        raise DataError(
            "static quantization needs calibration texts: --calib sst2, reviews or a file; or --mode dynamic"
        )
    if options.mode != "static" and given:
        raise DataError(f"--calib does nothing with --mode {options.mode}; name evaluation texts with --data")


def check_labels(
    source: Path, evaluation: Dataset, tokenizer: Tokenizer | None, options: Options, cache: Cache | None = None
) -> None:
    """Raise early, from the answer to one row, what evaluation would raise in the end: labels that do not fit."""
    row = evaluation.take([0])
    first = evaluate_once(cache, source, row, tokenizer, max_length=options.max_length, threads=options.threads)
    task_metrics(first, evaluation)


def check_vocabulary(model: Model, tokenizer: Tokenizer | None) -> None:
    """Raise DataError when the tokenizer has tokens that the word embedding has no row for."""
    if tokenizer is not None:
        tokenizer.check_fits(word_rows(model))


def word_rows(model: Model) -> int | None:
    """Ids that the word embedding takes; None when it was not found."""
    return embeddings_of(model).vocabulary


def fit_to(model: Model, options: Options) -> Options:
    """`options` with no more tokens a row than the graph's fixed length or its positions serve."""
    most = fixed_shape(model)[1] or most_tokens(model) or options.max_length
    return replace(options, max_length=min(options.max_length, most))


def make_trials(
    model: Model,
    calibration: Dataset,
    tokenizer: Tokenizer | None,
    options: Options,
    *,
    split: bool,
    corpus: Dataset | None = None,
    shape: Shape = ANY_SHAPE,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Trials:
    """Trials of what is made of `model`, judged on rows of their own when they are to be split and are not too few.

    corpus: texts whose tokens count, instead of those of the calibration rows. shape: the batch and the length that the
    model is to have later. cache: of statistics.
    """
    fitting = held_back = calibration
    if split and len(calibration) >= FEWEST_TO_SPLIT:
        fitting, held_back = holdout(calibration, HELD_BACK, options.seed)
    batches = (calibration_batches(model, data, tokenizer, options, shape) for data in (fitting, held_back))
    return Trials(
        model.clone(),
        *batches,
        protected_ids=protected_ids(tokenizer.file) if tokenizer is not None and tokenizer.file else frozenset(),
        corpus_counts=count_tokens(corpus, tokenizer) if corpus is not None and tokenizer is not None else None,
        threads=options.threads,
        cache=cache,
        progress=progress,
    )


def make_watch(
    source: Model,
    canonical: Model,
    calibration: Dataset | None,
    evaluation: Dataset | None,
    tokenizer: Tokenizer | None,
    options: Options,
    shape: Shape = ANY_SHAPE,
) -> Watch | None:
    """A watch over what is made of `source`, on a few of the rows that trials hold back of calibration.

    Without calibration, on evaluation rows. None without rows, or with fewer than the batch that the graph fixes.
    shape: as for trials.
    """
    dataset = calibration if calibration is not None else evaluation
    if dataset is None:
        return None
    if dataset is calibration and len(dataset) >= FEWEST_TO_SPLIT:
        dataset = holdout(dataset, HELD_BACK, options.seed)[1]
    least = fixed_shape(canonical)[0] or shape[0] or 1
    if len(dataset) < least:
        return None
    few = dataset.take(range(min(len(dataset), max(WATCHED, least))))
    return Watch(source, calibration_batches(canonical, few, tokenizer, options, shape), threads=options.threads)


def calibration_batches(
    model: Model,
    dataset: Dataset,
    tokenizer: Tokenizer | None,
    options: Options,
    shape: Shape = ANY_SHAPE,
) -> Batches:
    """`dataset` as the model's inputs, in the batch size and length that its graph fixes or `shape` will, if any."""
    rows, length = (fixed or later for fixed, later in zip(fixed_shape(model), shape, strict=True))
    if rows:  # no batch may be smaller
        dataset = dataset.take(range(len(dataset) - len(dataset) % rows))
    if not len(dataset):
        raise DataError(f"'{dataset.name}': too few calibration rows; give at least {rows or 1}, see --rows")
    return Batches(
        dataset,
        tokenizer,
        {tensor.name: np.dtype(tensor.dtype) for tensor in model.graph.inputs},
        roles_for(model, dataset, tokenizer),
        batch_size=rows or CALIBRATION_BATCH,
        max_length=min(options.max_length, length or options.max_length),
        fixed_length=length,
        vocab_rows=word_rows(model),
    )


def fixed_shape(model: Model) -> Shape:
    """The batch and the length that the graph's inputs fix; None where they are open."""
    return fixed_axes(tensor.shape or () for tensor in model.graph.inputs)


def shape_of(recipe: Recipe) -> Shape:
    """The batch and the length that a pass of `recipe` fixes; None where none does."""
    fixing = [step.action for step in recipe.steps if isinstance(step.action, FixShapes)]
    return (fixing[-1].batch, fixing[-1].seq) if fixing else ANY_SHAPE
