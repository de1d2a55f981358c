"""The main job: a smaller, faster model from a real export, with the proof beside it."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.datasets import Dataset, check_disjoint, holdout
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.calibration.vocabulary import count_tokens, protected_ids
from onnxslim_bert.choose_method import choose_method
from onnxslim_bert.contract import Want
from onnxslim_bert.errors import DataError, OutputError, PassError
from onnxslim_bert.int8_check import check_weights_stay_int8
from onnxslim_bert.model import Model
from onnxslim_bert.output import check_output, staging
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.pipeline import Done, run_recipe, run_step
from onnxslim_bert.proof.bench import Latency, bench
from onnxslim_bert.proof.comparison import Comparison, compare, task_metrics
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.footprint import model_bytes, model_files
from onnxslim_bert.proof.signature import fixed_axes
from onnxslim_bert.provenance import Provenance, stamp
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.report import report_path, write_report
from onnxslim_bert.sources import Sources
from onnxslim_bert.trials import Progress, Trials

Mode = Literal["static", "dynamic", "fp16"]
Format = Literal["contrib", "qdq"]

CALIBRATION_BATCH = 16
FEWEST_TO_SPLIT = 16  # rows below which choices are judged on the rows that they were fitted on
HELD_BACK = 0.125  # of the calibration rows: choices are judged on them
BENCH_BATCH, BENCH_LENGTH, BENCH_ROUNDS = 1, 128, 30


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    method: how activation ranges follow from calibration; None chooses by measured fidelity.
    batch: for throughput, batches of ragged texts: padding never reaches a dense layer.
    max_length: tokens kept of a calibration or evaluation row, as far as the model has positions.

    Raises PassError for a choice that the mode would ignore.
    """

    mode: Mode = "static"
    method: str | None = None
    format: Format = "contrib"
    smooth: bool = True
    batch: bool = False
    max_length: int = 128
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        ignored = {
            "--method": self.mode != "static" and self.method is not None,
            "--no-smooth": self.mode != "static" and not self.smooth,
            "--format qdq": self.mode == "fp16" and self.format == "qdq",
        }
        for option, given in ignored.items():
            if given:
                raise PassError(f"{option} does nothing with --mode {self.mode}; leave it out")


@dataclass(frozen=True)
class Result:
    """What was done and what it is worth.

    methods: the error of each range method on held-back rows, empty when the user named one.
    comparison: the task metric and fidelity on evaluation rows; None without evaluation data.
    latencies: of the source and of the result, batch 1, 128 tokens where the model takes them, interleaved.
    options: max_length as it was used.
    """

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]
    methods: dict[str, float]
    comparison: Comparison | None
    latencies: tuple[Latency, ...]
    options: Options


def quantize_files(
    source: Path,
    output: Path,
    sources: Sources,
    options: Options,
    *,
    overwrite: bool = False,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Result:
    """`quantize` with data by name."""
    check_outputs(source, [output, report_path(output)], overwrite=overwrite, in_place=in_place)
    check_calibration(options, given=sources.calibration is not None)
    calibration, evaluation = sources.load(options.seed)
    tokenizer = sources.tokenizer_for(source, calibration, evaluation)
    return quantize(
        source,
        output,
        calibration,
        evaluation,
        tokenizer,
        options,
        overwrite=overwrite,
        in_place=in_place,
        progress=progress,
    )


def quantize(
    source: Path,
    output: Path,
    calibration: Dataset | None,
    evaluation: Dataset | None,
    tokenizer: Tokenizer | None,
    options: Options,
    *,
    overwrite: bool = False,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write the quantized model of `source` to `output` and its report beside it; what was done and measured.

    Nothing is written until the model has passed its checks, and then as a whole. overwrite: outputs that exist;
    in_place: the source, when it is the output. Raises SlimError (ModelError, DataError, PassError, OutputError) for
    what the user can mend.
    """
    check_outputs(source, [output, report_path(output)], overwrite=overwrite, in_place=in_place)
    check_calibration(options, given=calibration is not None)
    if calibration is not None and evaluation is not None:
        check_disjoint(calibration, evaluation)
    model = Model.load(source)
    exact, rest = recipes_for(options)
    steps, methods = run_recipe(model, exact), dict[str, float]()
    check_vocabulary(model, tokenizer)
    options = fit_to(model, options)
    if evaluation is not None:
        check_labels(source, evaluation, tokenizer, options)
    trials, known = None, dict[Want, Any]()
    if calibration is not None:
        trials = make_trials(model, calibration, tokenizer, options, split=options.method is None, progress=progress)
    for step in rest.steps:
        if isinstance(step.action, QuantizeStatic) and options.method is None and trials is not None:
            started = time.process_time()
            action, change, methods = choose_method(model, step.action, trials)
            steps.append(Done(str(action), change.count, change.note, time.process_time() - started))
        else:
            steps.append(run_step(model, step, trials, known))
    provenance = Provenance.of(source, ",".join(done.step for done in steps), calibration)
    stamp(model, provenance)
    with staging(output) as folder:
        candidate = folder / output.name
        batch = fixed_shape(model)[0] or BENCH_BATCH
        model.save(candidate)
        del model, trials
        known.clear()
        gc.collect()  # a graph's nodes and tensors refer to each other
        if options.mode != "fp16":
            check_weights_stay_int8(candidate)
        comparison = None
        if evaluation is not None:
            comparison = compare_answers(source, candidate, evaluation, tokenizer, options, progress)
        before, after = bench(
            [source, candidate],
            batch_sizes=[batch],
            lengths=[min(BENCH_LENGTH, options.max_length)],
            rounds=BENCH_ROUNDS,
            threads=options.threads,
            seed=options.seed,
            footprints=False,
            progress=progress,
        ).latencies
        result = Result(
            source=source,
            output=output,
            source_bytes=model_bytes(source),
            output_bytes=model_bytes(candidate),
            provenance=provenance,
            steps=tuple(steps),
            methods=methods,
            comparison=comparison,
            latencies=(before, replace(after, model=str(output))),
            options=options,
        )
        report = report_path(candidate)
        write_report(report, result)
        report.replace(report_path(output))
        candidate.replace(output)
    return result


def recipes_for(options: Options) -> tuple[Recipe, Recipe]:
    """The passes of the main job: exact ones, which may find nothing to do, and then the others."""
    contrib = options.format == "contrib" and options.mode != "fp16"
    exact = ["canonicalize?", "fuse?" if contrib else "fuse{style=standard}?", "first-token?"]
    form = f"format={options.format}"
    last = {
        "static": f"quantize-static{{method={options.method or 'minmax'},{form}}}",
        "dynamic": f"quantize-dynamic{{{form}}}",
        "fp16": "float16",
    }[options.mode]
    smooth = ["split-outliers?", "smooth?"] * (options.smooth and options.mode == "static")
    # without padding before anything is quantized: ranges found at run time are then those of real tokens
    rest = [*smooth, *["unpad?"] * options.batch, last, *["skip-mask?"] * contrib]
    return Recipe.parse(",".join(exact)), Recipe.parse(",".join(rest))


def check_vocabulary(model: Model, tokenizer: Tokenizer | None) -> None:
    """Raise DataError when the tokenizer has tokens that the word embedding has no row for."""
    if tokenizer is not None:
        tokenizer.check_fits(word_rows(model))


def word_rows(model: Model) -> int | None:
    """Ids that the word embedding takes; None when it was not found."""
    return model.encoder.embeddings.vocabulary


def default_output(source: Path, options: Options) -> Path:
    """Beside the source: model.onnx -> model.int8.onnx, or model.fp16.onnx."""
    return source.with_suffix(".fp16.onnx" if options.mode == "fp16" else ".int8.onnx")


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


def check_labels(source: Path, evaluation: Dataset, tokenizer: Tokenizer | None, options: Options) -> None:
    """Raise early, from the answer to one row, what evaluation would raise in the end: labels that do not fit."""
    first = evaluate(source, evaluation.take([0]), tokenizer, max_length=options.max_length, threads=options.threads)
    task_metrics(first, evaluation)


def compare_answers(
    source: Path,
    candidate: Path,
    evaluation: Dataset,
    tokenizer: Tokenizer | None,
    options: Options,
    progress: Progress | None,
) -> Comparison:
    """How far the candidate's answers are from the source's. Raises PassError when one is not finite."""
    before, after = (
        evaluate(
            path,
            evaluation,
            tokenizer,
            max_length=options.max_length,
            threads=options.threads,
            progress=progress,
        )
        for path in (source, candidate)
    )
    comparison = compare(before, after, evaluation, seed=options.seed)
    if comparison.broken:
        raise PassError(
            f"the result answers NaN or infinity on {comparison.broken} of {comparison.rows} rows; nothing was written"
        )
    return comparison


def fit_to(model: Model, options: Options) -> Options:
    """`options` with no more tokens a row than the graph's fixed length or its table of positions has."""
    position = model.encoder.embeddings.position
    most = fixed_shape(model)[1] or (len(model.array(position)) if position else options.max_length)
    return replace(options, max_length=min(options.max_length, most))


def make_trials(
    model: Model,
    calibration: Dataset,
    tokenizer: Tokenizer | None,
    options: Options,
    *,
    split: bool,
    corpus: Dataset | None = None,
    progress: Progress | None = None,
) -> Trials:
    """Trials of what is made of `model`, judged on rows of their own when they are to be split and are not too few.

    corpus: texts whose tokens count, instead of those of the calibration rows.
    """
    fitting = held_back = calibration
    if split and len(calibration) >= FEWEST_TO_SPLIT:
        fitting, held_back = holdout(calibration, HELD_BACK, options.seed)
    batches = (calibration_batches(model, data, tokenizer, options) for data in (fitting, held_back))
    return Trials(
        model.clone(),
        *batches,
        protected_ids=protected_ids(tokenizer.file) if tokenizer is not None and tokenizer.file else frozenset(),
        corpus_counts=count_tokens(corpus, tokenizer) if corpus is not None and tokenizer is not None else None,
        threads=options.threads,
        progress=progress,
    )


def calibration_batches(model: Model, dataset: Dataset, tokenizer: Tokenizer | None, options: Options) -> Batches:
    """`dataset` as the model's inputs, in the batch size and length that its graph fixes, if any."""
    rows, length = fixed_shape(model)
    if rows:  # no batch may be smaller
        dataset = dataset.take(range(len(dataset) - len(dataset) % rows))
    if not len(dataset):
        raise DataError(f"'{dataset.name}': too few calibration rows; give at least {rows or 1}, see --rows")
    return Batches(
        dataset,
        tokenizer,
        {tensor.name: np.dtype(tensor.dtype) for tensor in model.graph.inputs},
        batch_size=rows or CALIBRATION_BATCH,
        max_length=options.max_length,
        fixed_length=length,
        vocab_rows=word_rows(model),
    )


def fixed_shape(model: Model) -> tuple[int | None, int | None]:
    """The batch and the length that the graph's inputs fix; None where they are open."""
    return fixed_axes(tensor.shape or () for tensor in model.graph.inputs)
