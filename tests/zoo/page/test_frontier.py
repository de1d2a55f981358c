"""Which points are best, on which scale they lie, and where their names go."""

import itertools
import math
import random
from dataclasses import replace

import pytest
from sample import HOSTILE, large_run, sample_run

from onnxslim_bert.proof.gates import Verdict
from onnxslim_bert.proof.intervals import Interval
from onnxslim_bert.zoo.page.labels import LINE, MARK, Box, fitted, is_far, place, text_width
from onnxslim_bert.zoo.page.layout import layout
from onnxslim_bert.zoo.page.panels import panels, ticks
from onnxslim_bert.zoo.page.pareto import pareto
from onnxslim_bert.zoo.page.points import SOURCE, undrawn
from onnxslim_bert.zoo.page.quality import loses_nothing, on_scale, quality_of, scale_of
from onnxslim_bert.zoo.page.trades import trades
from onnxslim_bert.zoo.records import Run

TARGETS = ["cpu", "qnn"]


@pytest.fixture(scope="module")
def run() -> Run:
    """24 jobs of four models."""
    return sample_run()


# the frontier


def test_a_point_is_best_unless_another_is_nowhere_dearer_and_somewhere_cheaper():
    costs = [(1.0, 9.0), (2.0, 5.0), (2.0, 6.0), (3.0, 5.0), (4.0, 1.0), (9.0, 9.0)]
    assert pareto(costs) == [0, 1, 4]


def test_equal_points_are_all_best():
    assert pareto([(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]) == [0, 1]


def test_the_frontier_of_random_points_is_what_no_other_dominates():
    """By the definition, one pair at a time: nothing best is dominated, and all else is, by a best one."""
    rng = random.Random(3)
    costs = [tuple(rng.randrange(6) for _ in range(3)) for _ in range(60)]
    best = pareto(costs)

    def dominates(one, other):
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    assert not any(dominates(costs[a], costs[b]) for a, b in itertools.product(best, best))
    assert all(any(dominates(costs[a], costs[b]) for a in best) for b in set(range(60)) - set(best))


def test_only_the_best_of_a_target_are_joined(run):
    """By megabytes, and to the right only upwards; the source ends the line where nothing matches its quality."""
    for trade in trades(run):
        for panel in panels(trade, TARGETS):
            for _, group in itertools.groupby(panel.joined, key=lambda at: at["target"]):
                steps = list(group)
                assert all(a["x"] < b["x"] and a["y"] < b["y"] for a, b in itertools.pairwise(steps))


# scales


def test_each_model_is_judged_on_the_first_scale_that_all_its_jobs_have(run):
    assert [trade.scale.kind for trade in trades(run)] == ["metric", "metric", "cosine", "agreement"]


def test_one_job_without_labels_puts_its_model_on_another_scale(run):
    rows = [row for row in run.rows if row.model == "minilm-l6-sst2"]
    compared = [row.result.comparison for row in rows]
    assert scale_of(compared).kind == "metric"
    assert scale_of([*compared[1:], replace(compared[0], scores=())]).kind == "agreement"
    assert scale_of([]) is None


def test_a_drop_points_downwards(run):
    """On the scale, more is better: a drop of 0.3 (-0.2 to 0.8) is a change of -0.3 (-0.8 to 0.2)."""
    comparison = run.rows[0].result.comparison
    score = replace(comparison.scores[0], drop=Interval(0.3, -0.2, 0.8))
    assert on_scale(replace(comparison, scores=(score,)), "metric") == Interval(-0.3, -0.8, 0.2)


@pytest.mark.parametrize(
    ("drop", "nothing"), [((0.4, -0.1, 0.9), True), ((0.4, 0.1, 0.7), False), ((-1, -2, -0.5), True)]
)
def test_a_loss_is_measurable_when_the_interval_of_the_drop_is_above_zero(run, drop, nothing):
    comparison = run.rows[0].result.comparison
    found = replace(comparison, scores=(replace(comparison.scores[0], drop=Interval(*drop)),))
    assert loses_nothing(found) is nothing
    assert loses_nothing(replace(found, broken=1)) is False


def test_without_labels_every_class_must_be_the_same_and_an_embedding_is_not_judged(run):
    comparison = replace(run.rows[0].result.comparison, scores=())
    same = replace(comparison.fidelity, agreement=Interval(100.0, 99.0, 100.0))
    assert loses_nothing(comparison) is False
    assert loses_nothing(replace(comparison, fidelity=same)) is True
    assert loses_nothing(replace(comparison, fidelity=replace(same, agreement=None))) is None


def test_a_value_that_is_no_number_is_none(run):
    """report_json writes NaN as null, which is read as NaN."""
    row, scale = run.rows[0], trades(run)[0].scale
    comparison = row.result.comparison
    score = replace(comparison.scores[0], drop=Interval(math.nan, math.nan, math.nan))
    broken = replace(row, result=replace(row.result, comparison=replace(comparison, scores=(score,))))
    assert quality_of(broken, scale) is None


# the job to take


def test_the_fastest_is_timed_unharmed_and_within_budget_and_the_smallest_within_budget(run):
    minilm, stsb, embedder, hostile = trades(run)
    assert (minilm.fastest.recipe, minilm.smallest.recipe) == ("int8", "small")
    assert (stsb.fastest.recipe, stsb.smallest.recipe) == ("int8", "dynamic")
    assert embedder.fastest is None
    assert embedder.smallest.recipe == "tiny"
    assert hostile.fastest is None
    assert [trade.done for trade in (minilm, stsb, embedder, hostile)] == [6, 4, 5, 4]


def test_one_result_under_two_budgets_is_taken_where_it_meets_them(run):
    """Recipes of one content share a key."""
    source = run.sources[0]
    rows = [row for row in run.rows if row.model == source.name and row.recipe == "int8"]
    over = replace(rows[0], recipe="strict", exit_code=6, verdicts=(Verdict("max-size", "missed", "too large"),))
    (trade,) = trades(replace(run, sources=(source,), rows=(over, *rows)))
    assert (trade.fastest.recipe, trade.smallest.recipe) == ("int8", "int8")


# points and their names


def test_every_job_is_a_point_with_its_recipe_and_target_or_named_as_undrawn(run):
    for trade in trades(run):
        sizes, times = panels(trade, TARGETS)
        jobs = {f"{row.recipe} · {row.target}" for row in trade.rows if row.result}
        assert {point.name for point in sizes.points} == {"source", *jobs}
        assert {point.name for point in times.points} == {"source · cpu"} | {name for name in jobs if "qnn" not in name}
        assert {row.key for row in undrawn(trade)} == {row.key for row in trade.rows if row.result is None}


def test_a_model_without_a_compared_job_has_no_picture(run):
    trade = trades(run)[0]
    rows = tuple(replace(row, result=replace(row.result, comparison=None)) for row in trade.rows)
    [alone] = trades(replace(run, sources=(trade.source,), rows=rows))
    assert panels(alone, TARGETS) == []
    assert len(undrawn(alone)) == 6


def test_a_target_has_one_colour_and_one_shape_in_all_pictures(run):
    points = [point for trade in trades(run) for panel in panels(trade, TARGETS) for point in panel.points]
    looks = {(point.target, point.colour, point.shape) for point in points if point.shape != SOURCE}
    assert looks == {("cpu", "var(--target-0)", "circle"), ("qnn", "var(--target-1)", "square")}


@pytest.mark.parametrize("width", [292, 510])
@pytest.mark.parametrize("of", ["sample", "large"])
def test_no_name_meets_another_or_a_point_or_leaves_the_picture(run, of, width):
    for trade in trades(run if of == "sample" else large_run(40)):
        for panel in panels(trade, TARGETS):
            found = layout(panel, width)
            boxes = [_box(label) for label in found.labels]
            marks = [Box.around(label.to_x, label.to_y, MARK - 2, MARK - 2) for label in found.labels]
            assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].meets(pair[1])]
            assert not [pair for pair in itertools.product(boxes, marks) if pair[0].meets(pair[1])]
            assert all(Box(0, 0, width, found.height).holds(box) for box in boxes)


def _box(label) -> Box:
    width = text_width(label.text) - 0.01
    left = {"left": label.x, "right": label.x - width, "center": label.x - width / 2}[label.align]
    return Box(left, label.y - LINE / 2, left + width, label.y + LINE / 2)


def test_a_crowd_of_points_in_one_place_all_get_names():
    """Thirty at the same place, in a picture that has room for them."""
    points, frame = [(200.0, 150.0)] * 30, Box(0, 0, 400, 500)
    boxes = place(points, [90.0] * 30, frame)
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].meets(pair[1])]
    assert sum(is_far(200, 150, box) for box in boxes) > 20  # a line leads to these


def test_without_room_there_is_no_place():
    assert place([(50.0, 50.0)] * 9, [90.0] * 9, Box(0, 0, 100, 100)) is None


def test_a_name_keeps_clear_of_lines_where_it_can():
    """The place to the right is the first choice, until a line runs through it."""
    point, frame = (100.0, 100.0), Box(0, 0, 300, 200)
    [free] = place([point], [60.0], frame)
    line = Box(105, 98, 200, 102)
    [clear] = place([point], [60.0], frame, [line])
    assert free.meets(line)
    assert not clear.meets(line)


def test_a_name_is_nearest_to_its_own_point():
    """Two points side by side, the left one named first: the right one's name does not go to the left of both."""
    points = [(100.0, 100.0), (114.0, 104.0)]
    boxes = place(points, [60.0, 60.0], Box(0, 0, 300, 200))
    for own, box in zip(points, boxes, strict=True):
        distances = [math.dist(point, box.nearest(*point)) for point in points]
        assert min(distances) == math.dist(own, box.nearest(*own))


def test_long_names_are_cut_to_what_fits():
    assert fitted("int8 · cpu", 200) == "int8 · cpu"
    assert fitted("w" * 99, 100).endswith("…")
    assert text_width(fitted("w" * 99, 100)) <= 100
    assert fitted(HOSTILE * 9 + "\n", 150).startswith("<img")


@pytest.mark.parametrize(
    ("ends", "expected"), [((9, 140), (10, 30, 100)), ((11.7, 133), (20, 50, 100)), ((24, 31), (24, 25, 26))]
)
def test_an_axis_has_a_few_round_numbers(ends, expected):
    found = ticks(*ends)
    assert found[: len(expected)] == pytest.approx(expected)
    assert 3 <= len(found) <= 9
    assert all(ends[0] <= tick <= ends[1] for tick in found)
