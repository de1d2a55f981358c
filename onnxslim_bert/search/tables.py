"""Measure what the search chooses from: sensitivities, costs, and the steps besides narrowing."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from onnxslim_bert.choose_method import choose_method
from onnxslim_bert.errors import PassError
from onnxslim_bert.model import Model
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.pipeline import run_recipe
from onnxslim_bert.proof.footprint import model_bytes
from onnxslim_bert.pruning.sensitivity import Sensitivity, measure
from onnxslim_bert.pruning.sites import find_sites
from onnxslim_bert.pruning.widths import ladder, measured_widths
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.search.choose import GRID, Alternative
from onnxslim_bert.search.costs import KINDS, Costs, Workload, time_models, write_int8
from onnxslim_bert.trials import Trials

RANKS = (2, 3, 4, 6)  # of these parts of the width, for the factors of the word table
VOCABULARIES = (2, 3, 4)  # parts of the vocabulary that stay
TOKENS = (0.75, 0.5, 0.35)  # shares of the tokens that go on


def measure_sensitivities(model: Model, trials: Trials) -> list[Sensitivity]:
    """What each width of each site does to the answers."""
    sites = [site for kind in KINDS for site in find_sites(model, kind)]
    return measure(model, sites, [measured_widths(ladder(site.units, GRID[site.kind])) for site in sites], trials)


def choose_int8_method(model: Model, trials: Trials) -> str:
    """The range method with which the int8 form of the whole model is nearest to it."""
    probe = model.clone()
    run_recipe(probe, Recipe.parse("first-token?,split-outliers?,smooth?"), trials)
    return choose_method(probe, QuantizeStatic(), trials)[0].method


def measure_alternatives(
    model: Model, steps: Iterable[Alternative], costs: Costs, workload: Workload, folder: Path, trials: Trials
) -> list[Alternative]:
    """Those of `steps` that the model can have, with their damage and what they save, as int8; the empty one first."""
    found = [Alternative()]
    wanted = list(steps)
    full = write_int8(model, [], 0.0, folder / "full.onnx")
    for done, one in enumerate(wanted, start=1):
        made = model.clone()
        before = "first-token?," if one.after is not None else ""
        try:
            changes = run_recipe(made, Recipe.parse(before + one.step), trials, allow_noop=True)
        except PassError:
            continue  # not for this model
        if changes[-1].count:
            damage = trials.damage(made)
            file = write_int8(made, [], 0.0, folder / "alternative.onnx")
            slow, fast = time_models([full, file], workload)
            ms, nbytes = costs.full_ms * (1 - fast / slow), float(model_bytes(full) - model_bytes(file))
            found.append(replace(one, damage=damage, ms=ms, nbytes=nbytes))
        trials.progress("measuring alternatives", done, len(wanted))
    return found


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


def layer_steps(model: Model) -> list[Alternative]:
    """One layer less: each layer in turn."""
    layers = range(len(model.encoder.layers))
    return [Alternative(f"drop-layers{{layers={i}}}", gone=(i,)) for i in layers if len(layers) > 1]
