"""Run any recipe over a model file."""

from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.errors import DataError
from onnxslim_bert.model import Model
from onnxslim_bert.pipeline import Done, run_recipe
from onnxslim_bert.proof.footprint import model_bytes
from onnxslim_bert.provenance import Provenance, stamp
from onnxslim_bert.quantize import Options, check_outputs, check_vocabulary, fit_to, make_trials
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.sources import Sources
from onnxslim_bert.trials import Progress


@dataclass(frozen=True)
class Slimmed:
    """What a recipe did to a file."""

    source: Path
    output: Path
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]


def slim(
    source: Path,
    output: Path,
    recipe: Recipe,
    sources: Sources,
    options: Options,
    *,
    allow_noop: bool = False,
    overwrite: bool = False,
    in_place: bool = False,
    progress: Progress | None = None,
) -> Slimmed:
    """Write what `recipe` makes of `source` to `output`.

    overwrite: an output that exists; in_place: the source, when it is the output. Raises SlimError for what the user
    can mend; then nothing is written.
    """
    check_outputs(source, [output], overwrite=overwrite, in_place=in_place)
    if sources.calibration is not None and not recipe.wants_calibration:
        raise DataError(f"--calib does nothing: no pass of {recipe} reads calibration texts")
    model = Model.load(source)
    trials, calibration = None, None
    if sources.calibration is not None:
        calibration, _ = sources.load(options.seed)
        tokenizer = sources.tokenizer_for(source, calibration)
        canonical = model.clone()
        run_recipe(canonical, Recipe.parse("canonicalize?"))
        check_vocabulary(canonical, tokenizer)
        if calibration is not None:
            fitted = fit_to(canonical, options)
            trials = make_trials(canonical, calibration, tokenizer, fitted, split=recipe.measures, progress=progress)
    steps = run_recipe(model, recipe, trials, allow_noop=allow_noop)
    provenance = Provenance.of(source, str(recipe), calibration)
    stamp(model, provenance)
    before = model_bytes(source)
    model.save(output, overwrite=overwrite or in_place)
    return Slimmed(source, output, before, model_bytes(output), provenance, tuple(steps))
