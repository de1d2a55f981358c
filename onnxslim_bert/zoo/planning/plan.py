"""What a zoo file asks for, checked and spelled out: one entry for each job."""

from dataclasses import dataclass, field
from pathlib import Path

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.recipes.recipe import Recipe


@dataclass(frozen=True)
class PlannedJob:
    """One job of a zoo: a model, made by a recipe, for a target.

    model, recipe, target: their names. source: path or URL of the model. text: the recipe as it stands in the zoo file.
    passes: the recipe with the passes that the target needs; with several lengths, that of the first one. deployment,
    working: where the result runs, and how it is made. sources: the data; the tokenizer is a path or None.
    memory: most bytes, timeout: most seconds that the job may take.
    """

    model: str
    recipe: str
    target: str
    source: str
    text: str
    passes: Recipe
    deployment: Deployment
    working: Working
    sources: Sources
    budgets: Budgets = field(default_factory=Budgets)
    memory: int | None = None
    timeout: float | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.model} {self.recipe} {self.target}"


@dataclass(frozen=True)
class ZooPlan:
    """A whole zoo: at least one job.

    written: files that its globs and folders pass over, as onnxslim wrote them.
    time: whether sources and results are timed, in `rounds` interleaved rounds of `batch` rows of `length` tokens.
    study: whether the sensitivity of each source's layers is measured.
    """

    path: Path
    jobs: tuple[PlannedJob, ...]
    time: bool = True
    rounds: int = 30
    batch: int = 1
    length: int = 128
    study: bool = True
    written: tuple[str, ...] = ()
