"""Find the smallest or fastest model within what may be lost, and show what lies on the way there."""

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.job.rows import fixed_shape
from onnxslim_bert.job.search.aim import budget_at, reach
from onnxslim_bert.job.search.alternatives import Alternative, Measurements
from onnxslim_bert.job.search.choose import Prediction, choose, whole
from onnxslim_bert.job.search.costs import Costs, TimedRows, measure_costs, time_models
from onnxslim_bert.job.search.points import Found, Point, frontier, pick
from onnxslim_bert.job.search.precisions import measure_precisions
from onnxslim_bert.job.search.state import Candidate, SearchState
from onnxslim_bert.job.search.tables import (
    choose_int8_method,
    embedding_steps,
    layer_steps,
    measure_alternatives,
    measure_sensitivities,
    showing,
    spliced_trials,
    token_steps,
)
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.int8 import FUSED
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.int8_check import check_weights_stay_int8

DEPTHS = (0.0, 0.4, 0.7, 0.85, 1.0)  # of the way from the int8 model to the targets
CORRECTIONS = 3  # times that a target is aimed at again, when what was built misses what the tables said
MARGIN = 1.02  # by which targets are then aimed beyond
BISECTIONS = 3  # steps between the deepest model within the drop and the first beyond it


Judge = Callable[[Path], float]  # the points of the task metric that a file loses
Steps = Callable[[Model], Sequence[Alternative]]


class Search:
    """One search over a model file.

    trials: on calibration rows. judge: says what a candidate loses on rows that are in no calibration. state: what was
    measured and built before is not done again. judged: what those rows are called.
    """

    def __init__(
        self,
        source: Path,
        model: Model,
        trials: Trials,
        judge: Judge,
        workload: TimedRows,
        state: SearchState,
        judged: str = "",
    ) -> None:
        self.source = source
        self.model = model
        self.trials = trials
        self.judge = judge
        self.workload = workload
        self.state = state
        self.judged = judged
        self.points: dict[str, Point] = {}

    def run(self, targets: Targets) -> Found:
        """The frontier towards `targets` and its point that meets them with the least damage.

        Raises LatencyGateError, SizeGateError or AccuracyGateError, saying how far it came, when none does.
        """
        options = self._measured()
        only_drop = targets.speedup is None and targets.nbytes is None
        points = self._until(options, targets.drop or 0.0) if only_drop else self._towards(options, targets)
        best = frontier(list(dict.fromkeys(points)))
        source_ms = best[0].ms * best[0].speedup
        return Found(targets, self.judged, source_ms, tuple(best), pick(best, targets), options.shown())

    def _measured(self) -> Measurements:
        """Every table, each on disk as soon as it is there."""
        once, trials = self.state.once, self.trials

        def alternatives(name: str, steps: Steps, trials: Trials) -> list[Alternative]:
            return measure_alternatives(
                self._fused, steps(self._fused), costs, self.workload, self.state.folder, trials, f"measuring {name}"
            )

        sensitivities = once("widths", list[Sensitivity], lambda: measure_sensitivities(self._fused, trials))
        costs = once("costs", Costs, self._costs)
        layers = once("layers", list[Alternative], lambda: alternatives("layers", layer_steps, trials))
        tables = once("tables", list[Alternative], lambda: alternatives("word tables", embedding_steps, trials))
        tokens = once("tokens", list[Alternative], lambda: alternatives("tokens", token_steps, self._long))
        method = once("method", str, lambda: choose_int8_method(self._fused, trials))
        precisions = once("precisions", list[Alternative], lambda: self._precisions(method, costs))
        return Measurements(sensitivities, costs, layers, tables, tokens, method, precisions)

    def _costs(self) -> Costs:
        return measure_costs(self.source, self._fused, self.state.folder, self.workload, self.trials.progress)

    def _precisions(self, method: str, costs: Costs) -> list[Alternative]:
        return measure_precisions(self._fused, method, costs, self.workload, self.state.folder, self.trials)

    @cached_property
    def _fused(self) -> Model:
        model = self.model.clone()
        run_recipe(model, Recipe.parse(FUSED))
        return model

    @cached_property
    def _long(self) -> Trials:
        return spliced_trials(self.trials, fixed_shape(self.model)[1] or self.workload.length)

    def _towards(self, options: Measurements, targets: Targets) -> list[Point]:
        """Models on the way to the targets of speed and size, as far as it goes, and the one that reaches them."""
        deepest = reach(options, targets)
        points = [self._made(whole(options))]
        for done, depth in enumerate(DEPTHS, start=1):
            points += self._at(options, targets, deepest * depth)
            self.trials.progress("building models", done, len(DEPTHS))
        aim = targets
        for done in range(1, 1 + CORRECTIONS):
            last = points[-1]
            if deepest < 1 or Targets(targets.speedup, targets.nbytes).met_by(last.speedup, last.nbytes, 0.0):
                break
            speedup = aim.speedup and targets.speedup and aim.speedup * max(1, MARGIN * targets.speedup / last.speedup)
            nbytes = aim.nbytes and targets.nbytes and aim.nbytes * min(1, targets.nbytes / MARGIN / last.nbytes)
            aim = Targets(speedup, nbytes, targets.drop)
            deepest = reach(options, aim)
            points += self._at(options, aim, deepest)
            self.trials.progress("correcting the aim", done, CORRECTIONS)
        return points

    def _until(self, options: Measurements, drop: float) -> list[Point]:
        """Ever deeper models until one loses more than `drop`, and those between the last two.

        When int8 alone loses more, the first one with layers in float32 that does not is among them, however slow.
        """
        targets = Targets(drop=drop)
        deepest = reach(options, targets)
        points = [self._made(whole(options))]
        for precision in options.precisions[1:]:
            if points[-1].drop > drop:
                points.append(self._made(whole(options, precision)))
        within, beyond = 0.0, deepest
        for done, depth in enumerate(DEPTHS, start=1):
            points += self._at(options, targets, deepest * depth)
            self.trials.progress("building models", done, len(DEPTHS))
            if points[-1].drop > drop:
                beyond = deepest * depth
                break
            within = deepest * depth
        for done in range(1, 1 + BISECTIONS):
            if within == beyond:
                break
            middle = (within + beyond) / 2
            points += self._at(options, targets, middle)
            within, beyond = (middle, beyond) if points[-1].drop <= drop else (within, middle)
            self.trials.progress("closing in on the drop", done, BISECTIONS)
        return points

    def _at(self, options: Measurements, targets: Targets, depth: float) -> list[Point]:
        """The best model at `depth` between the int8 model and the targets; none when no plan goes that far."""
        chosen = choose(options, budget_at(options.costs, targets, depth))
        return [] if chosen is None else [self._made(chosen)]

    def _made(self, prediction: Prediction) -> Point:
        return self._measure(self._build(prediction))

    def _build(self, prediction: Prediction) -> Candidate:
        recipe = str(prediction.plan.recipe)
        held = self.state.candidate(recipe)
        if held is not None:
            return held
        model = self.model.clone()
        run_recipe(model, prediction.plan.recipe, showing(self.trials))
        damage = self.trials.damage(model)
        if prediction.plan.tokens:
            damage = max(damage, self._long.damage(model))
        file = self.state.folder / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.onnx"
        model.save(file, overwrite=True)
        check_weights_stay_int8(file)
        del model
        gc.collect()  # a graph's nodes and tensors refer to each other
        candidate = Candidate(recipe, file, model_bytes(file), prediction.damage, damage)
        self.state.keep_candidate(candidate)
        return candidate

    def _measure(self, candidate: Candidate) -> Point:
        """A candidate timed together with the source, and judged."""
        if candidate.recipe not in self.points:
            source, ms = time_models([self.source, candidate.file], self.workload)
            drop = candidate.drop
            if drop is None:
                drop = self.judge(candidate.file)
                self.state.keep_candidate(replace(candidate, drop=drop))
            measured = candidate.damage, candidate.predicted, drop
            self.points[candidate.recipe] = Point(
                candidate.recipe, candidate.file, candidate.nbytes, ms, source / ms, *measured
            )
        return self.points[candidate.recipe]
