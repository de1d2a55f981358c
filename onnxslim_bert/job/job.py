"""A job: one model file to make from another, with everything that decides how."""

from dataclasses import dataclass, field
from pathlib import Path

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.data import Data, Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.main_recipe import main_recipe
from onnxslim_bert.job.seal import OPEN, Gate
from onnxslim_bert.recipes.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """One job: make the model `output` from `source` by a recipe, for the place where it is to run.

    What to make:
    source: an ONNX file. output: the file to write; a folder for a deployment of several lengths. recipe: the passes,
    by default those of the main job (int8). data: rows by name, or the rows themselves. deployment: where it runs.
    gate: budgets that the result must meet to be written. allow_noop: accept a pass that changes nothing.
    rewrite_tokenizer: after `trim-vocabulary`, write a smaller tokenizer.json beside the output, in place of the id map
    in the model. overwrite: replace outputs that exist; in_place: replace the source, when it is the output.

    How to work:
    working: threads, seed, tokens in a row and the like. Of these `max_length` and `seed` decide the calibration rows,
    and `threads` how sums round; the others change no written byte.

    What to report:
    report: write the report beside the output, as JSON. timing: time source and result against each other; a budget for
    the speed-up is timed in any case. worst: number of rows of the largest difference to name. damages: measure the
    damage after each step. steps: a folder in which the model after each step is kept (`StepFiles`).

    Example: quantize for the CPU with texts to calibrate on.

    >>> Job(Path("model.onnx"), Path("small.onnx"), data=Sources("texts.txt")).recipe.wants_calibration
    True
    """

    source: Path
    output: Path
    recipe: Recipe = field(default_factory=main_recipe)
    data: Sources | Data = field(default_factory=Sources)
    deployment: Deployment = field(default_factory=Deployment)
    working: Working = field(default_factory=Working)
    gate: Gate = OPEN
    report: bool = True
    timing: bool = True
    allow_noop: bool = False
    rewrite_tokenizer: bool = False
    overwrite: bool = False
    in_place: bool = False
    worst: int = 0
    damages: bool = False
    steps: Path | None = None

    @property
    def times(self) -> bool:
        """Whether source and result are run against each other."""
        return self.timing or self.gate.budgets.min_speedup is not None
