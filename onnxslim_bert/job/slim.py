"""Run any recipe over a model file."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.datasets import Dataset, check_disjoint
from onnxslim_bert.calibration.tokenizer import Tokenizer, load_tokenizer
from onnxslim_bert.calibration.vocabulary import token_growth
from onnxslim_bert.errors import DataError, PassError
from onnxslim_bert.graph.files import check_output, model_bytes, staging, write_atomically
from onnxslim_bert.job.data import Data, Sources
from onnxslim_bert.job.options import Options
from onnxslim_bert.job.prepare import (
    check_outputs,
    check_vocabulary,
    fit_to,
    fixed_shape,
    make_trials,
    make_watch,
    shape_of,
)
from onnxslim_bert.job.prove import compare_answers, place, proven_on
from onnxslim_bert.job.rewrite_tokenizer import rewrite_tokenizer
from onnxslim_bert.job.seal import OPEN, Gate, seal
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Verdict
from onnxslim_bert.proof.time_against import time_against
from onnxslim_bert.proof.worst import Disagreement
from onnxslim_bert.recipes.provenance import Provenance, stamp
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import Done, record, run_recipe
from onnxslim_bert.recipes.watch import Watch
from onnxslim_bert.rewriting.contract import Change
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.placement import Placement
from onnxslim_bert.targets.table import target_named

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Slimmed:
    """What a recipe did to a file.

    comparison: with the source on evaluation rows, on `proven_on`; None without any. worst: rows of largest difference.
    placement, unproven: where the nodes run on the target, and what could not be shown here. gate, verdicts: what it
    was held to, and on every budget. published: whether it was written, which a missed budget prevents.
    """

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]
    placement: Placement | None
    unproven: str
    proven_on: str
    comparison: Comparison | None
    worst: tuple[Disagreement, ...]
    gate: Gate
    verdicts: tuple[Verdict, ...]
    published: bool


def slim(
    source: Path,
    output: Path,
    recipe: Recipe,
    sources: Sources,
    options: Options,
    *,
    gate: Gate = OPEN,
    rewrite: bool = False,
    allow_noop: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    cache: Cache | None = None,
    worst: int = 0,
    damages: bool = False,
    progress: Progress | None = None,
) -> Slimmed:
    """Write what `recipe` makes of `source` to `output`, and prove it on the target that `options` name.

    rewrite: take the id map of `trim-vocabulary` out again and write the smaller tokenizer.json beside the output.
    overwrite: an output that exists; in_place: the source, when it is the output. cache, worst, damages: as for
    `quantize`, as is gate. Raises SlimError for what the user can mend; then nothing is written.
    """
    check_outputs(source, [output], overwrite=overwrite, in_place=in_place)
    if sources.calibration is not None and not recipe.wants_calibration:
        raise DataError(f"--calib does nothing: no pass of {recipe} reads calibration texts")
    calibration, evaluation = sources.load_named(options.seed)
    gate.check(evaluation)
    corpus = sources.load_corpus(evaluation)
    tokenizer = sources.tokenizer_for(source, calibration, evaluation, corpus)
    if rewrite:
        check_output(output.parent / TOKENIZER, overwrite=overwrite, inputs=_files(tokenizer))
    model = Model.load(source)
    if calibration is not None and evaluation is not None:
        check_disjoint(calibration, evaluation)
    data = Data(calibration, evaluation, tokenizer)
    trials, watch = None, None
    if data.calibration is not None or data.evaluation is not None or gate.budgets.min_speedup is not None:
        options, trials, watch = _measuring(model, recipe, data, corpus, options, cache, damages, progress)
    steps = run_recipe(model, recipe, trials, allow_noop=allow_noop, watch=watch)
    options = replace(options, max_length=min(options.max_length, fixed_shape(model)[1] or options.max_length))
    provenance = Provenance.of(source, str(recipe), calibration, corpus)
    stamp(model, provenance)
    with staging(output) as folder:
        candidate, smaller = folder / output.name, tokenizer
        if rewrite:
            smaller, step = _rewritten(model, tokenizer, calibration, folder)
            steps.append(step)
        model.save(candidate)
        placement, unproven = place(candidate, options)
        comparison: Comparison | None = None
        differing: tuple[Disagreement, ...] = ()
        if evaluation is not None:
            comparison, differing = compare_answers(
                source,
                candidate,
                evaluation,
                tokenizer,
                options,
                progress,
                candidate_tokenizer=smaller,
                worst=worst,
                cache=cache,
            )
        latencies: tuple[Latency, ...] = ()
        if gate.budgets.min_speedup is not None:
            latencies = time_against(
                source,
                candidate,
                target_named(options.target),
                max_length=options.max_length,
                threads=options.threads,
                seed=options.seed,
                inputs=sources.inputs,
                progress=progress,
            )
        verdicts = seal(
            candidate,
            gate,
            options,
            comparison,
            provider=proven_on(options).name,
            latencies=latencies,
            sources=sources,
            tokenizer=tokenizer,
            own_tokenizer=smaller,
        )
        sizes = model_bytes(source), model_bytes(candidate)
        published = not gate.fails(verdicts)
        if published and rewrite:
            (folder / TOKENIZER).replace(output.parent / TOKENIZER)
        if published:
            candidate.replace(output)
    return Slimmed(
        source=source,
        output=output,
        source_bytes=sizes[0],
        output_bytes=sizes[1],
        provenance=provenance,
        steps=tuple(steps),
        placement=placement,
        unproven=unproven,
        proven_on=proven_on(options).name,
        comparison=comparison,
        worst=differing,
        gate=gate,
        verdicts=verdicts,
        published=published,
    )


def _measuring(
    model: Model,
    recipe: Recipe,
    data: Data,
    corpus: Dataset | None,
    options: Options,
    cache: Cache | None,
    damages: bool,
    progress: Progress | None,
) -> tuple[Options, Trials | None, Watch | None]:
    """`options` as they fit the model, trials for passes, and a watch over their damage; as far as there are data."""
    canonical, shape = model.clone(), shape_of(recipe)
    run_recipe(canonical, Recipe.parse("canonicalize?"))
    check_vocabulary(canonical, data.tokenizer)
    options = fit_to(canonical, options)
    trials, watch = None, None
    if data.calibration is not None:
        trials = make_trials(
            canonical,
            data.calibration,
            data.tokenizer,
            options,
            split=recipe.measures,
            corpus=corpus,
            shape=shape,
            cache=cache,
            progress=progress,
        )
    if damages:
        watch = make_watch(model, canonical, data.calibration, data.evaluation, data.tokenizer, options, shape)
    return options, trials, watch


def _rewritten(
    model: Model, tokenizer: Tokenizer | None, texts: Dataset | None, folder: Path
) -> tuple[Tokenizer, Done]:
    """The smaller tokenizer, written to `folder`, and what it does to the length of texts."""
    if tokenizer is None or tokenizer.file is None or texts is None:
        raise PassError("--rewrite-tokenizer needs the tokenizer.json that trim-vocabulary was run with")
    started = time.process_time()
    text = rewrite_tokenizer(model, tokenizer.file.read_text(encoding="utf-8"))
    write_atomically(folder / TOKENIZER, [text.encode()], overwrite=True)
    smaller = load_tokenizer(folder / TOKENIZER)
    growth = token_growth(texts, tokenizer, smaller)
    note = (
        f"{smaller.vocab_size} tokens, from {tokenizer.vocab_size}; calibration texts are {growth:.1%} longer in tokens"
    )
    change = Change(tokenizer.vocab_size - smaller.vocab_size, note, {"growth": growth})
    return smaller, record("rewrite-tokenizer", change, started, model)


def _files(tokenizer: Tokenizer | None) -> list[Path]:
    return [tokenizer.file] if tokenizer is not None and tokenizer.file is not None else []
