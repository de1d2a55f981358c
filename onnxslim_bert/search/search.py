"""Find the smallest or fastest model within what may be lost, and show what lies on the way there."""

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxslim_bert.errors import AccuracyGateError, LatencyGateError, SizeGateError
from onnxslim_bert.int8_check import check_weights_stay_int8
from onnxslim_bert.model import Model
from onnxslim_bert.pipeline import run_recipe
from onnxslim_bert.proof.footprint import model_bytes
from onnxslim_bert.recipe import Recipe
from onnxslim_bert.search.choose import Budget, Options, Prediction, choose
from onnxslim_bert.search.costs import Workload, measure_costs, time_models
from onnxslim_bert.search.plan import EXACT
from onnxslim_bert.search.state import Candidate, State
from onnxslim_bert.search.tables import (
    choose_int8_method,
    embedding_steps,
    layer_steps,
    measure_alternatives,
    measure_sensitivities,
    token_steps,
)
from onnxslim_bert.search.targets import Targets
from onnxslim_bert.trials import Trials

DEPTHS = (0.0, 0.4, 0.7, 0.85, 1.0)  # of the way from the int8 model to the target
DEEPEST = 0.2  # share of the int8 model's time that is left at depth 1 when no speed is asked for
CORRECTIONS = 3  # times that a target is aimed at again, when what was built misses what the tables said
BISECTIONS = 3  # steps between the deepest model within the drop and the first beyond it


@dataclass(frozen=True)
class Point:
    """One model of the frontier, measured. speedup: over the source. drop: points of the task metric on judged rows."""

    recipe: str
    file: Path
    nbytes: int
    ms: float
    speedup: float
    damage: float
    predicted: float
    drop: float


@dataclass(frozen=True)
class Found:
    """The frontier, slowest first, and the point that meets the targets."""

    source_ms: float
    frontier: tuple[Point, ...]
    chosen: Point


Judge = Callable[[Path], float]  # the points of the task metric that a file loses


class Search:
    """One search over a model file.

    trials: on calibration rows. judge: says what a candidate loses on rows that are in no calibration. state: what was
    measured and built before is not done again.
    """

    def __init__(
        self, source: Path, model: Model, trials: Trials, judge: Judge, workload: Workload, state: State
    ) -> None:
        self.source = source
        self.model = model
        self.trials = trials
        self.judge = judge
        self.workload = workload
        self.state = state
        self.drops: dict[str, float] = {}

    def run(self, targets: Targets) -> Found:
        """The frontier towards `targets` and its point that meets them with the least damage.

        Raises LatencyGateError, SizeGateError or AccuracyGateError, saying how far it came, when none does.
        """
        options = self.state.options or self._measure()
        built = self._deepen(options, targets) if targets.speedup or targets.nbytes else self._until(options, targets)
        points = self._points(list({candidate.recipe: candidate for candidate in built}.values()))
        meeting = [point for point in points if targets.met_by(point.speedup, point.nbytes, point.drop)]
        if not meeting:
            raise _missed(points, targets)
        only_drop = targets.speedup is None and targets.nbytes is None
        best = (
            max(meeting, key=lambda p: p.speedup) if only_drop else min(meeting, key=lambda p: (p.damage, -p.speedup))
        )
        return Found(points[0].ms * points[0].speedup, tuple(points), best)

    def _measure(self) -> Options:
        model = self.model.clone()
        run_recipe(model, Recipe.parse(EXACT))
        sensitivities = measure_sensitivities(model, self.trials)
        costs = measure_costs(self.source, model, self.state.folder, self.workload, self.trials.progress)
        layers, embeddings, tokens = (
            measure_alternatives(model, steps(model), costs, self.workload, self.state.folder, self.trials)
            for steps in (layer_steps, embedding_steps, token_steps)
        )
        method = choose_int8_method(model, self.trials)
        options = Options(sensitivities, costs, layers, embeddings, tokens, method)
        self.state.keep_options(options)
        return options

    def _deepen(self, options: Options, targets: Targets) -> list[Candidate]:
        """Models on the way to the targets of speed and size, and the one that reaches them."""
        aim = targets
        built: list[Candidate] = []
        for depth in DEPTHS:
            built += self._at(options, aim, depth)
        for _ in range(CORRECTIONS):
            last = self._points([built[-1]])[0]
            if Targets(targets.speedup, targets.nbytes).met_by(last.speedup, last.nbytes, 0.0):
                break
            speedup = aim.speedup and targets.speedup and aim.speedup * max(1.0, 1.01 * targets.speedup / last.speedup)
            nbytes = aim.nbytes and targets.nbytes and aim.nbytes * min(1.0, 0.995 * targets.nbytes / last.nbytes)
            aim = Targets(speedup, nbytes, targets.drop)
            further = self._at(options, aim, 1.0)
            if not further:
                break
            built += further
        return built

    def _until(self, options: Options, targets: Targets) -> list[Candidate]:
        """Ever deeper models until one loses more than is allowed, and those between the last two."""
        built: list[Candidate] = []
        within, beyond = 0.0, 1.0
        for depth in DEPTHS:
            built += (made := self._at(options, targets, depth))
            if made and self._drop(made[-1]) > (targets.drop or 0.0):
                beyond = depth
                break
            within = depth
        for _ in range(BISECTIONS):
            middle = (within + beyond) / 2
            built += (made := self._at(options, targets, middle))
            if made and self._drop(made[-1]) <= (targets.drop or 0.0):
                within = middle
            else:
                beyond = middle
        return built

    def _at(self, options: Options, targets: Targets, depth: float) -> list[Candidate]:
        """The best model at `depth` between the int8 model and the targets; none when no plan goes that far."""
        costs = options.costs
        goal = costs.source_ms / targets.speedup if targets.speedup else costs.full_ms * DEEPEST
        ms = costs.full_ms + depth * (min(goal, costs.full_ms) - costs.full_ms)
        nbytes = None
        if targets.nbytes:
            nbytes = costs.full_bytes + depth * (min(targets.nbytes, costs.full_bytes) - costs.full_bytes)
        chosen = choose(options, Budget(ms if targets.speedup or not targets.nbytes else None, nbytes))
        return [] if chosen is None else [self._build(chosen)]

    def _build(self, prediction: Prediction) -> Candidate:
        recipe = str(prediction.plan.recipe)
        held = self.state.candidate(recipe)
        if held is not None:
            return held
        model = self.model.clone()
        run_recipe(model, prediction.plan.recipe, self.trials)
        damage = self.trials.damage(model)
        file = self.state.folder / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.onnx"
        model.save(file, overwrite=True)
        check_weights_stay_int8(file)
        del model
        gc.collect()  # a graph's nodes and tensors refer to each other
        candidate = Candidate(recipe, file, model_bytes(file), prediction.damage, damage)
        self.state.keep_candidate(candidate)
        return candidate

    def _drop(self, candidate: Candidate) -> float:
        if candidate.recipe not in self.drops:
            self.drops[candidate.recipe] = self.judge(candidate.file)
        return self.drops[candidate.recipe]

    def _points(self, candidates: Sequence[Candidate]) -> list[Point]:
        """The candidates, slowest first, timed with the source in one interleaved run."""
        source, *times = time_models([self.source, *(one.file for one in candidates)], self.workload)
        points = [
            Point(one.recipe, one.file, one.nbytes, ms, source / ms, one.damage, one.predicted, self._drop(one))
            for one, ms in zip(candidates, times, strict=True)
        ]
        return sorted(points, key=lambda point: point.speedup)


def _missed(points: Sequence[Point], targets: Targets) -> Exception:
    """The error that says which target was out of reach, and how far the search came."""
    fastest, smallest = max(points, key=lambda p: p.speedup), min(points, key=lambda p: p.nbytes)
    if targets.speedup and fastest.speedup < targets.speedup:
        return LatencyGateError(
            f"--target-speedup {targets.speedup:g} was not reached: the fastest is {fastest.speedup:.2f}x"
        )
    if targets.nbytes and smallest.nbytes > targets.nbytes:
        asked, reached = (f"{nbytes / 1e6:.1f} MB" for nbytes in (targets.nbytes, smallest.nbytes))
        return SizeGateError(f"--target-size {asked} was not reached: the smallest is {reached}")
    within = [point for point in points if targets.drop is None or point.drop <= targets.drop]
    best = max(within, key=lambda p: p.speedup, default=None)
    far = f"the fastest within it is {best.speedup:.2f}x at {best.nbytes / 1e6:.1f} MB" if best else "no model keeps it"
    return AccuracyGateError(f"--max-drop {targets.drop:g} does not hold at the targets: {far}")
