"""Measure what the search chooses from: sensitivities, costs, and the steps besides narrowing."""

import gc
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.calibration.spliced import spliced
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.job.search.alternatives import Alternative
from onnxslim_bert.job.search.combined import GRID
from onnxslim_bert.job.search.costs import Costs, TimedRows, prunable_sites, time_models, write_int8
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.recipes.int8 import FIRST_TOKEN, SMOOTHING
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import Done, run_recipe
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity, measure
from onnxslim_bert.rewriting.pruning.widths import ladder, measured_widths
from onnxslim_bert.rewriting.trials import Trials

LAYERS = (1, 2)  # that go
RANKS = (2, 3, 4, 6)  # of these parts of the width, for the factors of the word table
VOCABULARIES = (2, 3, 4)  # parts of the vocabulary that stay
TOKENS = (0.75, 0.5, 0.35)  # shares of the tokens that go on


def measure_sensitivities(model: Model, trials: Trials) -> list[Sensitivity]:
    """What each width of each site does to the answers."""
    sites = prunable_sites(model)
    widths = [measured_widths(ladder(site.units, GRID[site.kind])) for site in sites]
    return measure(model, sites, widths, showing(trials, "measuring sensitivity")) if sites else []


def choose_int8_method(model: Model, trials: Trials) -> str:
    """The range method with which the int8 form of the whole model is nearest to it."""
    probe = before_int8(model, trials)
    return best_static(probe, showing(trials, "choosing the range method")).method


def best_static(model: Model, trials: Trials) -> QuantizeStatic:
    """The static int8 pass with the range method that damages the outputs of `model` least; `model` stays as it is."""
    action = QuantizeStatic(method="best")
    return action.best(model, Context(trials.collect(model, action.wants(model)), trials))[0]


def before_int8(model: Model, trials: Trials) -> Model:
    """`model`, canonicalized and fused, as it is before it is quantized; a copy."""
    made = model.clone()
    run_recipe(made, Recipe.parse(f"{FIRST_TOKEN},{SMOOTHING}"), showing(trials))
    return made


def measure_alternatives(
    model: Model,
    steps: Sequence[Alternative],
    costs: Costs,
    workload: TimedRows,
    folder: Path,
    trials: Trials,
    stage: str,
) -> list[Alternative]:
    """Those of `steps` that the model can have, with their damage and what they save, as int8; the empty one first.

    trials: judge the damage. stage: what the progress is called.
    """
    found = [Alternative()]
    full = folder / "full.onnx"
    if steps and not full.exists():
        write_int8(model, [], 0.0, full)
    for done, one in enumerate(steps, start=1):
        made = model.clone()
        change = _take(made, one, trials)
        if change is not None and change.count:
            damage = trials.damage(made)
            file = write_int8(made, [], 0.0, folder / "alternative.onnx")
            slow, fast = time_models([full, file], workload)
            ms, nbytes = costs.full_ms * (1 - fast / slow), float(model_bytes(full) - model_bytes(file))
            gone = tuple(change.details.get("removed", ()))
            step = f"drop-layers{{layers={'/'.join(map(str, gone))}}}" if gone else one.step  # not measured again
            found.append(replace(one, step=step, damage=damage, ms=ms, nbytes=nbytes, gone=gone))
            file.unlink()
        del made
        gc.collect()  # a graph's nodes and tensors refer to each other
        trials.progress(stage, done, len(steps))
    return found


def layer_steps(model: Model) -> list[Alternative]:
    """Fewer layers; the pass finds which ones."""
    return [Alternative(f"drop-layers{{drop={drop}}}") for drop in LAYERS if drop < len(model.encoder.layers)]


def embedding_steps(model: Model) -> list[Alternative]:
    """Smaller word tables: fewer rows, or fewer columns times a matrix."""
    embeddings = model.encoder.embeddings
    if embeddings.word is None:
        return []
    rows, width = model.array(embeddings.word).shape
    ranks = [f"factorize-embedding{{rank={width // part}}}" for part in RANKS]
    tables = [f"trim-vocabulary{{tokens={rows // part},min-count=0}}" for part in VOCABULARIES]
    return [Alternative(step) for step in [*ranks, *tables]]


def token_steps(model: Model) -> list[Alternative]:
    """Fewer tokens in the later layers."""
    after = len(model.encoder.layers) // 3
    return [
        Alternative(f"drop-tokens{{keep={keep},after={after}}}", after=after, keep=keep)
        for keep in TOKENS
        if after < len(model.encoder.layers) - 1
    ]


def spliced_trials(trials: Trials, length: int) -> Trials:
    """`trials` judged on their held-back rows spliced to `length` tokens.

    Texts shorter than the workload on which time is measured lose few tokens or none: on them, drops of tokens would
    look free.
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
    """`trials` whose progress is that of `stage` alone: what runs within it would start its bars again and again."""
    shown = copy(trials)
    shown.progress = lambda task, done, total: trials.progress(task, done, total) if task == stage else None
    return shown


def _take(model: Model, one: Alternative, trials: Trials) -> Done | None:
    """What the step did to `model`; None when such a model cannot have it."""
    before = f"{FIRST_TOKEN}," if one.after is not None else ""
    try:
        return run_recipe(model, Recipe.parse(before + one.step), showing(trials), allow_noop=True)[-1]
    except PassError:
        return None
