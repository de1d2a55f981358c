"""The search: measure what each step costs and saves, choose plans towards the targets, build and measure models."""

import gc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from onnxslim_bert.errors import GateError
from onnxslim_bert.job.report_text import built
from onnxslim_bert.job.rows import fixed_shape
from onnxslim_bert.job.search.alternatives import Alternative, MeasuredOptions
from onnxslim_bert.job.search.choose import Prediction, choose, whole
from onnxslim_bert.job.search.costs import Costs, TimingConditions, measure_costs, size_of, time_models
from onnxslim_bert.job.search.depth import budget_at, reach
from onnxslim_bert.job.search.distilled_plans import distil_plans
from onnxslim_bert.job.search.frontier import MeasuredPoint, SearchResult, frontier, nearest, pick
from onnxslim_bert.job.search.matrix_bits import MatrixBits
from onnxslim_bert.job.search.packings import measure_bits
from onnxslim_bert.job.search.precisions import measure_precisions
from onnxslim_bert.job.search.search_folder import Candidate, SearchFolder
from onnxslim_bert.job.search.tables import (
    choose_int8_method,
    embedding_steps,
    layer_steps,
    measure_alternatives,
    measure_sensitivities,
    more_layer_steps,
    reporting,
    spliced_trials,
    stream_steps,
    token_steps,
)
from onnxslim_bert.job.search.targets import Targets
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.progress import Progress, Stage
from onnxslim_bert.proof.class_losses import ClassLoss, loss_lines
from onnxslim_bert.recipes.int8 import FUSED
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.pruning.sensitivity import Sensitivity
from onnxslim_bert.rewriting.trials import Trials
from onnxslim_bert.targets.int8_check import check_weights_stay_int8
from onnxslim_bert.targets.int8_kernels import u8s8_saturates
from onnxslim_bert.targets.table import CPU

DEPTHS = (0.0, 0.4, 0.7, 0.85, 1.0)  # of the way from the int8 model to the targets
CORRECTIONS = 3  # times that a target is aimed at again, when what was built misses what the tables said
BISECTIONS = 3  # steps between the deepest model within the drop and the first beyond it


DropOf = Callable[[Path], float]  # file -> points of the task metric that it loses against the source
LossesOf = Callable[[Path], tuple[ClassLoss, ...]]  # file -> what it loses of the rows of each label
Steps = Callable[[Model], Sequence[Alternative]]


class Search:
    """A search for the recipe that makes one model file small or fast at the least damage.

    source: the file; model: the same as it was read. trials: measure damage on calibration rows. drop_of: the points
    of the task metric that a candidate loses on other rows, which `judged` names; losses_of: of which labels, asked of
    the best one. conditions: how models are timed.
    state: the folder that keeps what was measured and built, so that a second run does none of it again.
    """

    def __init__(
        self,
        source: Path,
        model: Model,
        trials: Trials,
        drop_of: DropOf,
        conditions: TimingConditions,
        state: SearchFolder,
        judged: str = "",
        losses_of: LossesOf = lambda _: (),
    ) -> None:
        self.source = source
        self.model = model
        self.trials = trials
        self.drop_of = drop_of
        self.conditions = conditions
        self.state = state
        self.judged = judged
        self.losses_of = losses_of
        self.points: dict[str, MeasuredPoint] = {}

    def run(self, targets: Targets, texts: int = 0) -> SearchResult:
        """Build models on the way to `targets`, and choose the one that meets them with the least damage.

        texts: on so many, copies included, the best plan is distilled (`distil_plans`); 0 distils none.
        Raises LatencyGateError, SizeGateError or AccuracyGateError, saying how far it came and, as `found`, by which
        models, when none does.
        """
        options = self._measured(sized=targets.nbytes is not None)
        only_drop = targets.speedup is None and targets.nbytes is None
        points = self._until(options, targets.drop or 0.0) if only_drop else self._towards(options, targets)
        best = without = frontier(list(dict.fromkeys(points)))
        if texts:
            options = replace(options, layers=[*options.layers, *self._deeper()], streams=self._narrower())
            points += distil_plans(options, targets, texts, self._made, self.trials.progress)
            best = frontier(list(dict.fromkeys(points)))
        source_ms = best[0].ms * best[0].speedup
        refitted = tuple(without) if texts else ()
        try:
            chosen = pick(best, targets)
        except GateError as error:
            lost = loss_lines(self.losses_of(nearest(best, targets).file), f"{self.judged}, by the nearest")
            raise type(error)(str(error), [*built(best, refitted, targets, self.judged), *lost]) from error
        losses = self.losses_of(chosen.file)
        return SearchResult(targets, self.judged, source_ms, tuple(best), chosen, options.shown(), refitted, losses)

    def _measured(self, *, sized: bool) -> MeasuredOptions:
        """Everything that plans are chosen from; each table is on disk as soon as it is measured.

        sized: whether a size is asked for, so that bits of matrices count.
        """
        once, trials = self.state.once, self.trials

        sensitivities = once("widths", list[Sensitivity], lambda: measure_sensitivities(self._fused, trials))
        costs = once("costs", Costs, self._costs)
        layers = once("layers", list[Alternative], lambda: self._tried("layers", layer_steps, costs))
        tables = once("tables", list[Alternative], lambda: self._tried("word tables", embedding_steps, costs))
        tokens = once("tokens", list[Alternative], lambda: self._tried("tokens", token_steps, costs, self._long))
        is_int8 = not self.conditions.where.is_lowered
        method = once("method", str, lambda: choose_int8_method(self._fused, trials)) if is_int8 else ""
        precisions = once("precisions", list[Alternative], lambda: self._precisions(method, costs))

        def measure() -> list[MatrixBits]:
            return measure_bits(self._fused, method, trials, packed=self.conditions.packed)

        matrices = once("bits", list[MatrixBits], measure) if is_int8 and sized else []
        return MeasuredOptions(sensitivities, costs, layers, tables, tokens, method, precisions, matrices=matrices)

    def _tried(self, name: str, steps: Steps, costs: Costs, trials: Trials | None = None) -> list[Alternative]:
        return measure_alternatives(
            self._fused,
            steps(self._fused),
            costs,
            self.conditions,
            self.state.folder,
            trials or self.trials,
            f"measuring {name}",
        )

    def _deeper(self) -> list[Alternative]:
        """Steps that drop more layers than a refit mends."""
        costs = self.state.once("costs", Costs, self._costs)
        found = self.state.once(
            "more layers", list[Alternative], lambda: self._tried("more layers", more_layer_steps, costs)
        )
        return found[1:]  # the first one does nothing

    def _narrower(self) -> list[Alternative]:
        """Steps that make the stream narrower, which a refit does not mend."""
        costs = self.state.once("costs", Costs, self._costs)
        return self.state.once("streams", list[Alternative], lambda: self._tried("the stream", stream_steps, costs))

    def _costs(self) -> Costs:
        return measure_costs(self.source, self._fused, self.state.folder, self.conditions, self.trials.progress)

    def _precisions(self, method: str, costs: Costs) -> list[Alternative]:
        return measure_precisions(self._fused, method, costs, self.conditions, self.state.folder, self.trials)

    @cached_property
    def _fused(self) -> Model:
        model = self.model.clone()
        run_recipe(model, Recipe.parse(FUSED))
        return model

    @cached_property
    def _long(self) -> Trials:
        return spliced_trials(self.trials, fixed_shape(self.model)[1] or self.conditions.length)

    def _towards(self, options: MeasuredOptions, targets: Targets) -> list[MeasuredPoint]:
        """Models at each of DEPTHS towards the targets of speed and size, and up to CORRECTIONS beyond them.

        When the deepest model misses the targets that the tables promised, it is aimed further (`Targets.beyond`).
        """
        deepest = reach(options, targets)
        stage = self._stage("building models", 1 + len(DEPTHS))
        points = [self._made(whole(options), stage.step())]
        for depth in DEPTHS:
            points += self._at(options, targets, deepest * depth, stage.step())
        aim, stage = targets, self._stage("correcting the aim", CORRECTIONS)
        for _ in range(CORRECTIONS):
            last = points[-1]
            if deepest < 1 or Targets(targets.speedup, targets.nbytes).met_by(last.speedup, last.nbytes, 0.0):
                break
            aim = aim.beyond(targets, last.speedup, last.nbytes)
            deepest = reach(options, aim)
            points += self._at(options, aim, deepest, stage.step())
        return points

    def _until(self, options: MeasuredOptions, drop: float) -> list[MeasuredPoint]:
        """Models ever deeper, until one loses more than `drop` points, and BISECTIONS more between the last two.

        When int8 in every layer loses more than `drop`, models with layers in float32 are built, too, until one does
        not.
        """
        targets = Targets(drop=drop)
        deepest = reach(options, targets)
        stage = self._stage("building models", len(options.precisions) + len(DEPTHS))
        points = [self._made(whole(options), stage.step())]
        for precision in options.precisions[1:]:
            progress = stage.step()
            if precision.floats and points[-1].drop > drop:
                points.append(self._made(whole(options, precision), progress))
        within, beyond = 0.0, deepest
        for depth in DEPTHS:
            points += self._at(options, targets, deepest * depth, stage.step())
            if points[-1].drop > drop:
                beyond = deepest * depth
                break
            within = deepest * depth
        stage = self._stage("closing in on the drop", BISECTIONS)
        for _ in range(BISECTIONS):
            if within == beyond:
                break
            middle = (within + beyond) / 2
            points += self._at(options, targets, middle, stage.step())
            within, beyond = (middle, beyond) if points[-1].drop <= drop else (within, middle)
        return points

    def _at(self, options: MeasuredOptions, targets: Targets, depth: float, progress: Progress) -> list[MeasuredPoint]:
        """The model of the best plan at `depth` (`budget_at`) towards the targets, measured; none when no plan fits."""
        chosen = choose(options, budget_at(options.costs, targets, depth))
        return [] if chosen is None else [self._made(chosen, progress)]

    def _stage(self, name: str, total: int) -> Stage:
        return Stage(self.trials.progress, name, total)

    def _made(self, prediction: Prediction, progress: Progress) -> MeasuredPoint:
        here = replace(prediction.plan, reduce_range=u8s8_saturates(), where=self.conditions.where)
        return self._measure(self._build(replace(prediction, plan=here), progress))

    def _build(self, prediction: Prediction, progress: Progress) -> Candidate:
        recipe = str(prediction.plan.recipe)
        held = self.state.candidate(recipe)
        if held is not None:
            return held
        model = self.model.clone()
        run_recipe(model, prediction.plan.recipe, reporting(self.trials, progress))
        damage = self.trials.damage(model)
        if prediction.plan.tokens:
            damage = max(damage, self._long.damage(model))
        file = self.state.folder / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.onnx"
        model.save(file, overwrite=True)
        if not self.conditions.where.is_lowered:
            check_weights_stay_int8(file)
        del model
        gc.collect()  # a graph's nodes and tensors refer to each other
        candidate = Candidate(recipe, file, size_of(file, self.conditions), prediction.damage, damage)
        self.state.keep_candidate(candidate)
        return candidate

    def _measure(self, candidate: Candidate) -> MeasuredPoint:
        """The candidate, timed in one run with the source, and with its drop of the task metric: each once."""
        if candidate.recipe not in self.points:
            drop = candidate.drop
            if drop is None or not candidate.ms:
                source_ms, ms = time_models([(self.source, CPU), candidate.file], self.conditions)
                drop = self.drop_of(candidate.file)
                candidate = replace(candidate, drop=drop, source_ms=source_ms, ms=ms)
                self.state.keep_candidate(candidate)
            speedup = candidate.source_ms / candidate.ms
            measured = candidate.damage, candidate.predicted, drop
            self.points[candidate.recipe] = MeasuredPoint(
                candidate.recipe, candidate.file, candidate.nbytes, candidate.ms, speedup, *measured
            )
        return self.points[candidate.recipe]
