"""The main job: a smaller, faster model from a real export, with the proof beside it."""

import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxslim_bert.bench import Latency, bench
from onnxslim_bert.calibration.batches import Batches
from onnxslim_bert.calibration.datasets import Dataset, check_disjoint, holdout, is_named, load_dataset, sample
from onnxslim_bert.calibration.tokenizer import Tokenizer, load_tokenizer
from onnxslim_bert.choose_method import choose_method
from onnxslim_bert.comparison import Comparison, compare
from onnxslim_bert.contract import Want
from onnxslim_bert.errors import DataError, OutputError
from onnxslim_bert.evaluation import evaluate
from onnxslim_bert.int8_check import check_weights_stay_int8
from onnxslim_bert.model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.pipeline import Done, run_recipe, run_step
from onnxslim_bert.provenance import Provenance, stamp
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.report import report_path, write_report

Mode = Literal["static", "dynamic", "fp16"]
Format = Literal["contrib", "qdq"]
Progress = Callable[[str, int, int], None]

CALIBRATION_BATCH = 16
FEWEST_TO_SPLIT = 16  # rows below which the range method is chosen on the rows that it was fitted on
HELD_BACK = 0.125  # of the calibration rows: the range method is chosen on them
BENCH_BATCH, BENCH_LENGTH, BENCH_ROUNDS = 1, 128, 30


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    method: how activation ranges follow from calibration; None chooses by measured fidelity.
    batch: for throughput, batches of ragged texts: padding never reaches a dense layer.
    max_length: tokens kept of a calibration or evaluation row.
    """

    mode: Mode = "static"
    method: str | None = None
    format: Format = "contrib"
    smooth: bool = True
    batch: bool = False
    max_length: int = 128
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Result:
    """What was done and what it is worth.

    methods: the error of each range method on held-back rows, empty when the user named one.
    comparison: the task metric and fidelity on evaluation rows; None without evaluation data.
    latencies: of the source and of the result, batch 1, 128 tokens, interleaved.
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


@dataclass(frozen=True)
class Sources:
    """Where texts and their tokenizer come from, as the user named them.

    calibration: a GLUE name, `reviews` or a file. evaluation: the same, and by default the calibration set's own
    validation split. tokenizer: a folder or a tokenizer.json, by default the model's folder.
    """

    calibration: str | None = None
    evaluation: str | None = None
    rows: int | None = None
    tokenizer: Path | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str | None = None

    def load(self, seed: int) -> tuple[Dataset | None, Dataset | None]:
        """The calibration and the evaluation rows, disjoint when both come from one named set."""
        load = partial(load_dataset, text_columns=self.text_columns or None, label_column=self.label_column)
        spec = self.evaluation or (self.calibration if is_named(self.calibration) else None)
        evaluation = load(spec, "evaluation") if spec else None
        if self.calibration is None:
            return None, evaluation
        calibration = load(self.calibration, "calibration")
        if evaluation is not None and is_named(self.calibration):
            calibration = calibration.without(evaluation)  # STS-B's own splits share rows
        return sample(calibration, self.rows, seed), evaluation

    def tokenizer_for(self, model: Path, *datasets: Dataset | None) -> Tokenizer | None:
        """The tokenizer that texts need; None when all data are ready feeds."""
        texts = any(data is not None and data.feeds is None for data in datasets)
        return load_tokenizer(self.tokenizer or model.parent) if texts else None


def quantize_files(
    source: Path,
    output: Path,
    sources: Sources,
    options: Options,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """`quantize` with data by name, and the report written beside the result."""
    check_output(source, output, overwrite)
    check_output(source, report_path(output), overwrite)
    if options.mode == "static" and sources.calibration is None:
        raise DataError(
            "static quantization needs calibration texts: --calib sst2, reviews or a file; or --mode dynamic"
        )
    calibration, evaluation = sources.load(options.seed)
    tokenizer = sources.tokenizer_for(source, calibration, evaluation)
    result = quantize(
        source, output, calibration, evaluation, tokenizer, options, overwrite=overwrite, progress=progress
    )
    write_report(result.output, result, overwrite=overwrite)
    return result


def quantize(
    source: Path,
    output: Path,
    calibration: Dataset | None,
    evaluation: Dataset | None,
    tokenizer: Tokenizer | None,
    options: Options,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write the quantized model of `source` to `output`; what was done and measured.

    Nothing is written until the model has passed its checks, and then as a whole. Raises SlimError (ModelError,
    DataError, PassError, OutputError) for what the user can mend.
    """
    check_output(source, output, overwrite)
    if calibration is not None and evaluation is not None:
        check_disjoint(calibration, evaluation)
    model = Model.load(source)
    exact, rest = recipes_for(options)
    steps, methods = run_recipe(model, exact), dict[str, float]()
    check_vocabulary(model, tokenizer)
    fitting, held_back, known = None, None, dict[Want, Any]()
    if calibration is not None:
        fitting, held_back = fitting_batches(model, calibration, tokenizer, options)
    for step in rest.steps:
        if isinstance(step.action, QuantizeStatic) and options.method is None and fitting and held_back:
            started = time.process_time()
            action, change, methods = choose_method(model, step.action, fitting, held_back, progress)
            steps.append(Done(str(action), change.count, change.note, time.process_time() - started))
        else:
            steps.append(run_step(model, step, fitting, known, progress=progress))
    provenance = Provenance.of(source, ",".join(done.step for done in steps), calibration)
    stamp(model, provenance)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".onnxslim-") as folder:
        candidate = Path(folder) / output.name
        model.save(candidate)
        del model, fitting, held_back
        known.clear()
        gc.collect()  # a graph's nodes and tensors refer to each other
        if options.mode != "fp16":
            check_weights_stay_int8(candidate)
        comparison = None
        if evaluation is not None:
            answers = [
                evaluate(
                    path,
                    evaluation,
                    tokenizer,
                    max_length=options.max_length,
                    threads=options.threads,
                    progress=progress,
                )
                for path in (source, candidate)
            ]
            comparison = compare(answers[0], answers[1], evaluation, seed=options.seed)
        latencies = bench(
            [source, candidate],
            batch_sizes=[BENCH_BATCH],
            lengths=[BENCH_LENGTH],
            rounds=BENCH_ROUNDS,
            threads=options.threads,
            seed=options.seed,
            footprints=False,
            progress=progress,
        ).latencies
        sizes = [path.stat().st_size for path in (source, candidate)]
        candidate.replace(output)
    return Result(
        source, output, sizes[0], sizes[1], provenance, tuple(steps), methods, comparison, tuple(latencies), options
    )


def recipes_for(options: Options) -> tuple[Recipe, Recipe]:
    """The passes of the main job: exact ones, which may find nothing to do, and then the others."""
    contrib = options.format == "contrib" and options.mode != "fp16"
    exact = ["canonicalize?", "fuse?" if contrib else "fuse{style=standard}?", "first-token?"]
    form = f"format={options.format}"
    rest = {
        "static": ["split-outliers?", "smooth?"] * options.smooth
        + [f"quantize-static{{method={options.method or 'minmax'},{form}}}"],
        "dynamic": [f"quantize-dynamic{{{form}}}"],
        "fp16": ["float16"],
    }[options.mode]
    rest += ["unpad?"] * options.batch + ["skip-mask?"] * contrib
    return Recipe.parse(",".join(exact)), Recipe.parse(",".join(rest))


def check_vocabulary(model: Model, tokenizer: Tokenizer | None) -> None:
    """Raise DataError when the tokenizer has tokens that the word embedding has no row for."""
    word = model.encoder.embeddings.word
    rows = model.array(word).shape[0] if word else None
    if tokenizer is not None and rows is not None and tokenizer.vocab_size > rows:
        raise DataError(
            f"tokenizer has {tokenizer.vocab_size} tokens, embedding has {rows} rows: "
            "needed the tokenizer that this model was trained with"
        )


def default_output(source: Path, options: Options) -> Path:
    """Beside the source: model.onnx -> model.int8.onnx, or model.fp16.onnx."""
    return source.with_suffix(".fp16.onnx" if options.mode == "fp16" else ".int8.onnx")


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Raise OutputError when `output` is the source, exists unasked, or lies in no folder that can be written."""
    if output.exists() and source.exists() and output.samefile(source):
        raise OutputError(f"{output} is the input; give another output")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists; give another output or --force to overwrite it")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: no folder {output.parent}; make it first")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output}: the folder {output.parent} cannot be written; give another output")


def fitting_batches(
    model: Model, calibration: Dataset, tokenizer: Tokenizer | None, options: Options
) -> tuple[Batches, Batches]:
    """Calibration batches to fit on, and others that fitting never sees (the same ones where there are too few)."""
    fitting, held_back = calibration, calibration
    if len(calibration) >= FEWEST_TO_SPLIT:
        fitting, held_back = holdout(calibration, HELD_BACK, options.seed)
    return tuple(calibration_batches(model, data, tokenizer, options) for data in (fitting, held_back))  # type: ignore[return-value]


def calibration_batches(model: Model, dataset: Dataset, tokenizer: Tokenizer | None, options: Options) -> Batches:
    """`dataset` as the model's inputs, in the batch size and length that its graph fixes, if any."""
    shapes = [tensor.shape for tensor in model.graph.inputs if len(tensor.shape or ()) == 2]
    rows, length = (next((s[axis] for s in shapes if isinstance(s[axis], int)), None) for axis in (0, 1))
    return Batches(
        dataset,
        tokenizer,
        {tensor.name: np.dtype(tensor.dtype) for tensor in model.graph.inputs},
        batch_size=rows or CALIBRATION_BATCH,
        max_length=options.max_length,
        fixed_length=length,
    )
