"""The main job: a smaller, faster model from a real export, with the proof beside it."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.datasets import Dataset, check_disjoint
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.errors import OutputError
from onnxslim_bert.graph.files import check_output, model_bytes, model_files, staging
from onnxslim_bert.job.data import Data, Sources
from onnxslim_bert.job.lengths import check_place, renew_manifest, take_place, write_buckets
from onnxslim_bert.job.make import Made, Saturating, make
from onnxslim_bert.job.options import Options
from onnxslim_bert.job.prepare import check_calibration, check_outputs
from onnxslim_bert.job.prove import check_finite, compare_answers, place, proven_on
from onnxslim_bert.job.seal import OPEN, Gate, seal
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.documents import report_path, write_report
from onnxslim_bert.proof.gates import Verdict
from onnxslim_bert.proof.time_against import time_against
from onnxslim_bert.proof.worst import Disagreement
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.int8_check import check_weights_stay_int8
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.table import target_named

Make = Callable[[Path, Data, Options], tuple[Model, Made]]


@dataclass(frozen=True)
class Result:
    """What was done and what it is worth.

    methods: the error of each range method on held-back rows, empty when the user named one.
    comparison: the task metric and fidelity on evaluation rows, on `proven_on`; None without evaluation data.
    latencies: of the source on the CPU and of the result on the target, batch 1, 128 tokens where the model takes them,
    interleaved; empty where nothing can be timed, or nothing was to be. worst: rows of largest difference.
    placement: where the nodes run, None on the CPU. unproven: what could not be shown here, and why.
    buckets: the file of each length, when there are several; all else is then said of the longest one.
    options: max_length as it was used. gate, verdicts: what it was held to, and on every budget.
    published: whether it was written, which a missed budget prevents.
    """

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]
    methods: dict[str, float]
    saturating: Saturating | None
    placement: Placement | None
    unproven: str
    proven_on: str
    comparison: Comparison | None
    worst: tuple[Disagreement, ...]
    latencies: tuple[Latency, ...]
    buckets: dict[int, str]
    options: Options
    gate: Gate
    verdicts: tuple[Verdict, ...]
    published: bool


def quantize_files(
    source: Path,
    output: Path,
    sources: Sources,
    options: Options,
    *,
    gate: Gate = OPEN,
    overwrite: bool = False,
    in_place: bool = False,
    cache: Cache | None = None,
    timing: bool = True,
    worst: int = 0,
    damages: bool = False,
    progress: Progress | None = None,
) -> Result:
    """`quantize` with data by name."""
    check_free(source, output, options, overwrite=overwrite, in_place=in_place)
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
        gate=gate,
        sources=sources,
        overwrite=overwrite,
        in_place=in_place,
        cache=cache,
        timing=timing,
        worst=worst,
        damages=damages,
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
    gate: Gate = OPEN,
    sources: Sources | None = None,
    overwrite: bool = False,
    in_place: bool = False,
    cache: Cache | None = None,
    timing: bool = True,
    worst: int = 0,
    damages: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Write what `options` make of `source` to `output`, and its report beside it; what was done and measured.

    With several lengths the output is a folder (`buckets`). Nothing is written until the model has passed its checks,
    and then as a whole; nothing when it misses a budget of `gate`, whose verdicts `gates.enforce` turns into an error.
    sources: by which its rows are found again. overwrite: outputs that exist; in_place: the source, when it is the
    output. cache: of what several recipes of one source measure alike. timing: run source and result against each
    other. worst: rows of largest difference that are named. damages: measure the damage after each step. None of the
    last four changes what is written.

    Raises SlimError (ModelError, DataError, PassError, OutputError, ProviderError) for what the user can mend.
    """
    check_free(source, output, options, overwrite=overwrite, in_place=in_place)
    check_calibration(options, given=calibration is not None)
    if calibration is not None and evaluation is not None:
        check_disjoint(calibration, evaluation)
    gate.check(evaluation)
    data = Data(calibration, evaluation, tokenizer)
    with staging(output) as folder:
        written = folder / output.name
        making = partial(make, progress=progress, cache=cache, damages=damages)
        made, candidate, lengths = _write(source, written, data, options, making)
        options = made.options
        if options.target == "cpu" and options.mode in ("static", "dynamic"):
            check_weights_stay_int8(candidate)
        placement, unproven = place(candidate, options)
        comparison: Comparison | None = None
        differing: tuple[Disagreement, ...] = ()
        if evaluation is not None:
            comparison, differing = compare_answers(
                source, candidate, evaluation, tokenizer, options, progress, worst=worst, cache=cache
            )
            check_finite(comparison)
        latencies = _time(source, candidate, output, options, progress, sources) if timing else ()
        proven = proven_on(options).name
        for file in sorted({written / name for name in lengths.values()} - {candidate}):
            seal(file, OPEN, options, None, sources=sources)
        verdicts = seal(
            candidate,
            gate,
            options,
            comparison,
            provider=proven,
            latencies=latencies,
            shared=_bytes(written) - model_bytes(candidate),
            sources=sources,
            tokenizer=tokenizer,
        )
        if lengths:
            renew_manifest(written)
        result = Result(
            source=source,
            output=output,
            source_bytes=model_bytes(source),
            output_bytes=_bytes(written),
            provenance=made.provenance,
            steps=made.steps,
            methods=made.methods,
            saturating=made.saturating,
            placement=placement,
            unproven=unproven,
            proven_on=proven,
            comparison=comparison,
            worst=differing,
            latencies=latencies,
            buckets=lengths,
            options=options,
            gate=gate,
            verdicts=verdicts,
            published=not gate.fails(verdicts),
        )
        if not result.published:
            return result
        report = report_path(written)
        write_report(report, result)
        report.replace(report_path(output))
        if lengths:
            take_place(written, output, folder / "replaced")
        else:
            candidate.replace(output)
    return result


def default_output(source: Path, options: Options) -> Path:
    """Beside the source: model.int8.onnx, model.fp16.onnx or model.qnn.onnx; a folder model-qnn for several lengths."""
    if len(options.seq) > 1:
        return source.with_name(f"{source.stem}-{options.target}")
    if options.target != "cpu":
        return source.with_suffix(f".{options.target}.onnx")
    return source.with_suffix(".fp16.onnx" if options.mode == "fp16" else ".int8.onnx")


def check_free(source: Path, output: Path, options: Options, *, overwrite: bool, in_place: bool) -> None:
    """Raise OutputError when what is to be written is there already unasked, or cannot be."""
    if len(options.seq) < 2:
        check_outputs(source, [output, report_path(output)], overwrite=overwrite, in_place=in_place)
        return
    if in_place:
        raise OutputError("several lengths make a folder of files, which cannot replace the model; give -o FOLDER")
    check_place(output, overwrite)
    check_output(report_path(output), overwrite=overwrite, inputs=model_files(source))


def _write(
    source: Path, written: Path, data: Data, options: Options, making: Make
) -> tuple[Made, Path, dict[int, str]]:
    """Write one model, or a folder of one for each length: the last that was made, its file, and those by length."""
    if len(options.seq) < 2:
        model, made = making(source, data, options)
        model.save(written)
        del model
        gc.collect()  # a graph's nodes and tensors refer to each other
        return made, written, {}
    done: list[Made] = []

    def models() -> Iterator[tuple[int, Model]]:
        for length in sorted(options.seq):
            model, made = making(source, data, replace(options, seq=(length,)))
            done.append(made)
            yield length, model
            del model
            gc.collect()

    lengths = write_buckets(written, models()).lengths
    longest = written / lengths[max(lengths)]
    return replace(done[-1], options=replace(done[-1].options, seq=options.seq)), longest, lengths


def _bytes(written: Path) -> int:
    """Of a file with its external data, or of a folder."""
    return sum(path.stat().st_size for path in written.iterdir()) if written.is_dir() else model_bytes(written)


def _time(
    source: Path, candidate: Path, output: Path, options: Options, progress: Progress | None, sources: Sources | None
) -> tuple[Latency, ...]:
    """The source on the CPU and the candidate, as what it will be called, on its target."""
    target, length = target_named(options.target), options.max_length
    inputs = sources.inputs if sources is not None else ""
    sizes = {"max_length": length, "threads": options.threads, "seed": options.seed}
    found = time_against(source, candidate, target, **sizes, inputs=inputs, progress=progress)
    return (*found[:1], *(replace(after, model=str(output)) for after in found[1:]))
