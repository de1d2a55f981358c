"""Measure what a search chooses from: the damage of widths, and the damage and savings of other steps."""

import gc
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration.spliced import spliced
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import PassError, ProviderError
from onnxslim_bert.job.prove import check_target
from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.costs import (
    Costs,
    TimingConditions,
    prunable_sites,
    size_of,
    time_models,
    write_quantized,
)
from onnxslim_bert.job.search.width_choices import GRID
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.prune_hidden import PruneHidden
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.progress import Progress, Stage
from onnxslim_bert.recipes.int8 import FIRST_TOKEN, SMOOTHING
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import Done, run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity, measure
from onnxslim_bert.rewriting.pruning.widths import ladder, measured_widths
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.int8_kernels import u8s8_saturates

LAYERS = (1, 2)  # numbers of layers to drop
RANKS = (2, 3, 4, 6)  # the rank of a factorized word table is its width divided by each of these
BITS = (4, 3, 2)  # of an entry of the word table, where it is not int8
CODED = (2, 1)  # of an entry of the word table, where it is stored as codes
VOCABULARIES = (2, 3, 4)  # the tokens of a trimmed vocabulary are all tokens divided by each of these
STREAMS = (0.75, 0.5)  # shares of the stream's channels that stay, where what is left is trained
TOKENS = (0.75, 0.5, 0.35)  # shares of the tokens that go on after a drop


def measure_sensitivities(model: Model, trials: Trials) -> list[Sensitivity]:
    """The damage to the outputs of several widths of each site, and in which order its units should go."""
    sites = prunable_sites(model)
    widths = [measured_widths(ladder(site.units, GRID[site.kind])) for site in sites]
    return measure(model, sites, widths, showing(trials, "measuring sensitivity")) if sites else []


def choose_int8_method(model: Model, trials: Trials) -> str:
    """The name of the range method with which int8 in every layer damages the outputs least."""
    probe = before_int8(model, trials)
    return best_static(probe, showing(trials, "choosing the range method")).method


def best_static(model: Model, trials: Trials) -> QuantizeStatic:
    """The static int8 pass, with the range method that damages the outputs least; `model` is not changed."""
    action = QuantizeStatic(method="best", reduce_range=u8s8_saturates())
    return action.best(model, Context(trials.collect(model, action.wants(model)), trials))[0]


def before_int8(model: Model, trials: Trials) -> Model:
    """A copy of `model` (canonicalized and fused) after the passes that come right before quantization."""
    made = model.clone()
    run_recipe(made, Recipe.parse(f"{FIRST_TOKEN},{SMOOTHING}"), showing(trials))
    return made


def measure_alternatives(
    model: Model,
    steps: Sequence[Alternative],
    costs: Costs,
    conditions: TimingConditions,
    folder: Path,
    trials: Trials,
    stage: str,
) -> list[Alternative]:
    """Try each of `steps` alone: its damage, and the milliseconds and bytes that it saves in the int8 model.

    Returns the empty alternative, which does nothing, and those of `steps` that change the model; steps that a model
    cannot have are left out. Damage is that of the float model, on the held-back rows of `trials`.

    model: canonicalized and fused. folder: for models that are timed. stage: what progress is reported as.
    """
    found = [Alternative()]
    full = folder / "full.onnx"
    if steps and not full.exists():
        write_quantized(model, [], 0.0, full, conditions.where)
    shown = Stage(trials.progress, stage, len(steps))
    for one in steps:
        made = model.clone()
        change = _take(made, one, reporting(trials, shown.step()))
        times = None
        if change is not None and change.count:
            damage = trials.damage(made)
            file = folder / "alternative.onnx"
            times = _timed(made, full, file, conditions)
        if change is not None and times is not None:
            slow, fast = times
            ms, nbytes = costs.full_ms * (1 - fast / slow), float(size_of(full, conditions) - size_of(file, conditions))
            gone = tuple(change.details.get("removed", ()))
            step = f"drop-layers{{layers={'/'.join(map(str, gone))}}}" if gone else one.step  # not measured again
            found.append(replace(one, step=step, damage=damage, ms=ms, nbytes=nbytes, gone=gone))
            file.unlink()
        del made
        gc.collect()  # a graph's nodes and tensors refer to each other
    return found


def _timed(model: Model, full: Path, file: Path, conditions: TimingConditions) -> list[float] | None:
    """Milliseconds a run of `full`, and of `model`, written to `file`; None where the target does not take it."""
    try:
        write_quantized(model, [], 0.0, file, conditions.where)
        check_target(file, conditions.where, Working(threads=conditions.threads))
        return time_models([full, file], conditions)
    except (PassError, ProviderError):
        file.unlink(missing_ok=True)
        return None


def layer_steps(model: Model) -> list[Alternative]:
    """Steps that drop one or two layers; the pass finds out which ones."""
    return [Alternative(f"drop-layers{{drop={drop}}}") for drop in LAYERS if drop < len(model.encoder.layers)]


def more_layer_steps(model: Model) -> list[Alternative]:
    """Steps that drop more layers than `layer_steps`, up to half of them: what is left needs training."""
    most = len(model.encoder.layers) // 2
    return [Alternative(f"drop-layers{{drop={drop}}}") for drop in range(max(LAYERS) + 1, most + 1)]


def stream_steps(model: Model) -> list[Alternative]:
    """Steps that make the stream narrower: what is left needs training."""
    hidden = model.encoder.hidden
    widths = dict.fromkeys(PruneHidden(keep=keep).width_of(hidden) for keep in STREAMS)
    return [Alternative(f"prune-hidden{{width={width}}}", stream=width / hidden) for width in widths]


def embedding_steps(model: Model) -> list[Alternative]:
    """Steps that make the word table smaller: factors, fewer bits, codes, fewer tokens, these in 4 bits or codes."""
    embeddings = model.encoder.embeddings
    if embeddings.word is None:
        return []
    rows, width = model.array(embeddings.word).shape
    ranks = [f"factorize-embedding{{rank={width // part}}}" for part in RANKS]
    tables = [f"trim-vocabulary{{tokens={rows // part},min-count=0}}" for part in VOCABULARIES]
    bits = [f"quantize-embedding{{bits={bits}}}" for bits in BITS]
    codes = [f"quantize-embedding{{bits={bits},codebook=product}}" for bits in CODED]
    both = [f"{table},{fewer}" for table in tables for fewer in (bits[0], *codes)]
    return [Alternative(step) for step in [*ranks, *bits, *codes, *both, *tables]]


def token_steps(model: Model) -> list[Alternative]:
    """Steps that drop tokens in layer number L // 3 of L layers, so that the later ones work on fewer."""
    after = len(model.encoder.layers) // 3
    return [
        Alternative(f"drop-tokens{{keep={keep},after={after}}}", after=after, keep=keep)
        for keep in TOKENS
        if after < len(model.encoder.layers) - 1
    ]


def spliced_trials(trials: Trials, length: int) -> Trials:
    """`trials` with held-back rows of `length` tokens, spliced together from several texts.

    To judge drops of tokens: short texts lose few tokens or none, so that a drop would look free on them, while time is
    measured on rows of `length` tokens.
    """
    return Trials(
        trials.original,
        trials.fitting,
        spliced(trials.held_back, length),
        protected_ids=trials.protected_ids,
        corpus_counts=trials.corpus_counts,
        corpus=trials.corpus,
        working=Working(threads=trials.threads, progress=trials.progress),
    )


def showing(trials: Trials, stage: str = "") -> Trials:
    """A copy of `trials` that reports the progress of `stage` alone, and not that of the work within it.

    A colon ends the name of a stage; what follows changes on the way.
    """
    return reporting(
        trials, lambda task, *counts: trials.progress(task, *counts) if task.partition(":")[0] == stage else None
    )


def reporting(trials: Trials, progress: Progress) -> Trials:
    """A copy of `trials` that reports to `progress`."""
    shown = copy(trials)
    shown.progress = progress
    return shown


def _take(model: Model, one: Alternative, trials: Trials) -> Done | None:
    """Do the step to `model`: what it did, or None when a pass refuses such a model."""
    before = f"{FIRST_TOKEN}," if one.after is not None else ""
    try:
        return run_recipe(model, Recipe.parse(before + one.step), trials, allow_noop=True)[-1]
    except PassError:
        return None
