"""Run any recipe over a model file."""

from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.model import Model
from onnxslim_bert.pipeline import Done, Progress, run_recipe
from onnxslim_bert.provenance import Provenance, stamp
from onnxslim_bert.quantize import Options, Sources, calibration_batches, check_output, check_vocabulary
from onnxslim_bert.recipe import Recipe


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
    progress: Progress | None = None,
) -> Slimmed:
    """Write what `recipe` makes of `source` to `output`.

    Raises SlimError for what the user can mend; then nothing is written.
    """
    check_output(source, output, overwrite)
    model = Model.load(source)
    batches, calibration = None, None
    if sources.calibration is not None:
        calibration, _ = sources.load(options.seed)
        tokenizer = sources.tokenizer_for(source, calibration)
        canonical = model.clone()
        run_recipe(canonical, Recipe.parse("canonicalize?"))
        check_vocabulary(canonical, tokenizer)
        if calibration is not None:
            batches = calibration_batches(model, calibration, tokenizer, options)
    steps = run_recipe(model, recipe, batches, allow_noop=allow_noop, progress=progress)
    provenance = Provenance.of(source, str(recipe), calibration)
    stamp(model, provenance)
    model.save(output, overwrite=overwrite)
    sizes = [path.stat().st_size for path in (source, output)]
    return Slimmed(source, output, sizes[0], sizes[1], provenance, tuple(steps))
