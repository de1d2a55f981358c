"""One job of a zoo: the settings that hold for it, checked and made into what runs."""

from functools import cache
from pathlib import Path

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import PassError
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.proof.gates import Budgets
from onnxslim_bert.recipes.lowering import LOWERINGS, lowered
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.zoo.planning.job_data import JobData
from onnxslim_bert.zoo.planning.keys import BUDGETS, Layer
from onnxslim_bert.zoo.planning.mistakes import Mistakes
from onnxslim_bert.zoo.planning.plan import PlannedJob
from onnxslim_bert.zoo.planning.recipe_entries import RecipeEntry, without_dashes
from onnxslim_bert.zoo.planning.settings import Settings
from onnxslim_bert.zoo.planning.toml_lines import Place

MAX_LENGTH = 128  # as on the command line
TIMEOUT = 7200.0  # seconds of a job that names no limit


class Jobs:
    """Plans the jobs of a zoo file, and notes what is wrong with them.

    folder: relative paths are relative to it. timed: whether the run measures times.
    """

    def __init__(self, folder: Path, timed: bool, mistakes: Mistakes) -> None:
        self.used: set[Place] = set()
        self._timed, self._mistakes = timed, mistakes
        self._data = JobData(folder, mistakes)
        self._lowered = cache(_lowered)

    def plan(
        self, model: str, source: str, where: Place, asked: RecipeEntry, target: str, layers: tuple[Layer, ...]
    ) -> PlannedJob | None:
        """The planned job; None when a mistake in the file prevents it. where: the place of the model's path in it."""
        settings = Settings(layers, self.used)
        threads, seed = settings.take("threads", 1), settings.take("seed", 0)
        max_length = settings.take("max-length", MAX_LENGTH)
        seq = settings.take("seq", ()) if target != "cpu" and LOWERINGS[target].is_fixed else ()
        try:
            deployment = Deployment(target, seq)
            if asked.passes is None:
                passes = main_recipe(Quantization(**asked.options), deployment)
            else:
                passes = self._lowered(asked.passes, target, seq)
        except PassError as error:
            self._mistakes.add(asked.place, f"recipe {asked.name!r} for {target}: {without_dashes(error)}")
            settings.take_all()
            return None
        calibrates = passes.wants_calibration
        if calibrates and settings.look("calib") is None:
            needed = 'needs calibration texts: give calib, like calib = "reviews", a GLUE name or a file'
            self._mistakes.add(asked.place, f"recipe {asked.name!r} for {target} {needed}")
        sources = self._data.sources(settings, asked.settings, calibrates, asked.passes is not None)
        self._data.check_tokenizer(settings, sources, source, where)
        return PlannedJob(
            model=model,
            recipe=asked.name,
            target=target,
            source=source,
            text=asked.text,
            passes=passes,
            deployment=deployment,
            working=Working(max_length, threads, seed),
            sources=sources,
            budgets=self._budgets(settings, sources, asked.name),
            memory=settings.take("memory"),
            timeout=settings.take("timeout", TIMEOUT),
        )

    def _budgets(self, settings: Settings, sources: Sources, name: str) -> Budgets:
        """The budgets of the job. One that nothing is measured for, such as a drop without labels, is a mistake."""
        known = [settings.place(key) for key in ("calib", "data") if settings.look(key) is not None]
        for key in ("max-drop", "min-agreement", "min-cosine"):
            judged = sources.evaluation is not None or sources.holds_back
            if settings.look(key) is not None and not judged and not any(map(self._mistakes.at, known)):
                needed = "needs evaluation rows: give data, a GLUE name or a file"
                self._mistakes.add(settings.place(key), f"{key} of recipe {name!r} {needed}")
        labelled = self._data.check_evaluation(settings, sources)
        rows = sources.evaluation or sources.calibration
        if settings.look("max-drop") is not None and not labelled:
            self._mistakes.add(settings.place("max-drop"), f"max-drop needs labels: {rows} has none")
        if settings.look("min-speedup") is not None and not self._timed:
            self._mistakes.add(settings.place("min-speedup"), "min-speedup needs times, and [run] says time = false")
        return Budgets(*(settings.take(key) for key in BUDGETS))


def _lowered(passes: Recipe, target: str, seq: tuple[int, ...]) -> Recipe:
    if len(seq) > 1:
        raise PassError("a recipe of passes is run for one length; give one seq")
    return lowered(passes, target, *(seq or (None,)))
