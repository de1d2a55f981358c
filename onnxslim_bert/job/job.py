"""What a job is asked for."""

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
    """Make `output` of `source`, by a recipe, for where it is to run.

    source: an ONNX file. output: the file to write; a folder for a deployment of several lengths. recipe: by default
    that of the main job. data: rows by name, or the rows themselves. working: how it is done; of it, `max_length` and
    `seed` decide the calibration rows, and by `threads` sums round otherwise; the rest changes no written byte.
    gate: budgets that the result must meet to be written. report: write what is known of it beside it, as JSON.
    timing: run source and result against each other; a budget for the speed-up is timed in any case.
    allow_noop: a pass that changes nothing is accepted. rewrite_tokenizer: take the id map of `trim-vocabulary` out
    again and write the smaller tokenizer.json beside the output. overwrite: outputs that exist; in_place: the source,
    when it is the output. worst: so many rows of largest difference are named. damages: the damage after each step is
    measured.

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

    @property
    def times(self) -> bool:
        """Whether source and result are run against each other."""
        return self.timing or self.gate.budgets.min_speedup is not None
