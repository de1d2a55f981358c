"""Passes are held to what their classes promise: the run stops and names the one that broke it, and the figure."""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from graphs import SOME, prepared, trials

from onnxslim_bert.errors import ModelError, PassError
from onnxslim_bert.graph.edit import Builder, redirect
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.recipes import promises as promises_module
from onnxslim_bert.recipes.lowering import lowering
from onnxslim_bert.recipes.probes import Limits
from onnxslim_bert.recipes.promises import Promises, farthest
from onnxslim_bert.recipes.recipe import Recipe, Step
from onnxslim_bert.recipes.run import run_recipe, run_step
from onnxslim_bert.rewriting.contract import Change, Context, Pass


@dataclass(frozen=True)
class ScaleOutput(Pass):
    """Multiplies the last layer's `down` matrix: by 1 + share, which an exact pass must not."""

    name: ClassVar[str] = "scale-output"
    exact: ClassVar[float | None] = 1e-5
    share: float = 0.01

    def apply(self, model: Model, ctx: Context) -> Change:
        weight = model.encoder.layers[-1].down.weight
        model.replace(weight, model.array(weight) * np.float32(1 + self.share))
        return Change(1, "scaled")


@dataclass(frozen=True)
class Broken(Pass):
    """Breaks the graph in the way that `how` names."""

    name: ClassVar[str] = "broken"
    how: str = ""

    def __post_init__(self) -> None:
        """Any text is fine here."""

    def apply(self, model: Model, ctx: Context) -> Change:
        nodes = model.graph.nodes
        if self.how == "names":
            nodes[1].name = nodes[0].name
        elif self.how == "operator":
            next(node for node in nodes if node.op == "Softmax").op = "Softmin"
        elif self.how == "encoder":
            for node in [node for node in nodes if node.op == "Softmax"]:
                node.op, node.attrs = "Tanh", {}
        model.changed()
        return Change(1, "broken")


@dataclass(frozen=True)
class EndsEncoder(Broken):
    """The same, declared."""

    name: ClassVar[str] = "ends-encoder"
    ends_encoder: ClassVar[bool] = True


@dataclass(frozen=True)
class LongRowsOnly(Pass):
    """Goes wrong at the last position alone, where only the longest row comes."""

    name: ClassVar[str] = "long-rows-only"
    exact: ClassVar[float | None] = 1e-5

    def apply(self, model: Model, ctx: Context) -> Change:
        table = model.encoder.embeddings.position
        rows = np.array(model.array(table))
        rows[-1] *= -9
        model.replace(table, rows)
        return Change(1, "the last position moved")


@pytest.fixture
def model():
    return prepared("bert-ts17-sdpa", Canonicalize())


@pytest.mark.parametrize("share", [0.01, -0.2])
def test_an_exact_pass_that_changes_answers_is_named_with_the_figure(model, share):
    message = "scale-output promises the same answers within 1e-05, and they differ by"
    with pytest.raises(PassError, match=message) as error:
        run_recipe(model, Recipe((Step(ScaleOutput(share)),)))
    figure = float(re.search(r"differ by ([\d.e-]+)", str(error.value))[1])
    assert 1e-4 < figure < 1


def test_the_broken_one_of_several_is_named(model):
    """They are compared at their ends, and then one by one."""
    steps = [*Recipe.parse("fuse,first-token").steps, Step(ScaleOutput()), *Recipe.parse("skip-mask").steps]
    with pytest.raises(PassError, match=r"^scale-output promises"):
        run_recipe(model, Recipe(tuple(steps)))


def test_a_pass_that_changes_answers_on_purpose_is_not_compared(model):
    class OnPurpose(ScaleOutput):
        exact: ClassVar[float | None] = None

    assert run_recipe(model, Recipe((Step(OnPurpose()),)))[0].count == 1


def test_the_longest_row_that_positions_allow_is_tried(model):
    with pytest.raises(PassError, match=f"long-rows-only promises .* x {Limits.of(model).longest} tokens"):
        run_recipe(model, Recipe((Step(LongRowsOnly()),)))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("names", "broken broke the graph: two nodes are called"),
        ("operator", "broken broke the graph: .*Softmin"),
        ("encoder", "broken broke the encoder, which is no longer found: not a transformer encoder"),
    ],
)
def test_a_broken_graph_is_named(model, how, message):
    with pytest.raises(PassError, match=message):
        run_recipe(model, Recipe((Step(Broken(how)),)))


def test_a_pass_may_say_that_it_ends_the_encoder(model):
    assert run_recipe(model, Recipe((Step(EndsEncoder("encoder")),)))[0].count == 1


def test_a_model_that_onnxruntime_refuses_is_refused(model):
    """Before anything is written of it: the graph is valid, but the operator is nobody's."""
    node = next(node for node in model.graph.nodes if node.op == "Tanh" or node.op == "Erf")
    node.op, node.domain = "Nobodys", "nobody"
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model"):
        run_recipe(model, Recipe.parse("int32-inputs"))


def test_a_row_of_exact_passes_takes_two_sessions(model, monkeypatch):
    opened = []
    real = promises_module.skeleton_session
    monkeypatch.setattr(
        promises_module, "skeleton_session", lambda *given, **options: opened.append(1) or real(*given, **options)
    )
    run_recipe(model, Recipe.parse("fuse,first-token,int32-inputs"))
    assert len(opened) == 2
    run_recipe(model, Recipe.parse("fuse?,first-token?,quantize-dynamic"))
    assert len(opened) == 2  # two passes changed nothing, and the last one changes answers on purpose


def test_steps_of_one_walk_share_answers(model, monkeypatch):
    opened = []
    real = promises_module.skeleton_session
    monkeypatch.setattr(
        promises_module, "skeleton_session", lambda *given, **options: opened.append(1) or real(*given, **options)
    )
    held, known = Promises(), {}
    for step in Recipe.parse("fuse,first-token").steps:
        run_step(model, step, trials(model), known, promises=held)
    held.settle()
    assert len(opened) == 2


@pytest.mark.parametrize("name", SOME)
def test_exact_passes_of_every_family_keep_their_promises(name):
    """From the file as it is exported, through what the main job and the targets do."""
    for recipe in ("canonicalize?,fuse?,first-token?,skip-mask?", "canonicalize?,mask-bias?,split-sums?,unfuse-norms?"):
        model = prepared(name)
        assert run_recipe(model, Recipe.parse(recipe))


def test_a_model_that_draws_random_numbers_is_said_to():
    """No pass is at fault that two answers are not one."""
    model = prepared("bert-ts17-sdpa")
    noise = Builder(model.graph, "").node("RandomUniformLike", "noise", [model.graph.outputs[0]])
    added = Builder(model.graph, "").node("Add", "noisy", [model.graph.outputs[0], noise])
    added.dtype, added.shape = model.graph.outputs[0].dtype, model.graph.outputs[0].shape
    model.graph.outputs[0] = added
    with pytest.raises(ModelError, match=r"\(RandomUniformLike\) draws random numbers"):
        run_recipe(model, Recipe.parse("canonicalize,fuse"))


@pytest.mark.parametrize("seq", [7, 8])
def test_rare_large_steps_of_rounding_are_no_fault(seq):
    """Scores beside -10000 have a thousandth for their last bit: few draws of noise show it where all is padding."""
    model = prepared("distilbert-dynamo18-eager")
    assert run_recipe(model, lowering("nnapi", "fp32", seq)[0])


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([0.5, 0.1], [0.5, 0.2], 0.1),  # of 1, which is more than the largest answer
        ([10.0, 1.0], [10.0, 2.0], 0.1),  # of the largest
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
    ],
)
def test_answers_are_compared_by_the_largest(ours, theirs, expected):
    found = farthest([np.array(ours, np.float32)], [np.array(theirs, np.float32)])
    assert found == pytest.approx(expected, rel=1e-6)


@dataclass(frozen=True)
class ClipOutliers(Pass):
    """A user's pass of a few lines: clips what each `down` reads at +-limit, far out."""

    name: ClassVar[str] = "clip-outliers"
    limit: float = 1000.0

    def apply(self, model: Model, ctx: Context) -> Change:
        build = Builder(model.graph, "mine")
        low, high = (build.constant(f"bound{x}", np.array(x * self.limit, np.float32)) for x in (-1, 1))
        for layer in model.encoder.layers:
            source = model.graph.tensors()[layer.down.source]
            redirect(model.graph, source, clipped := gs.Variable(f"mine/{source.name}"))
            model.graph.nodes.append(gs.Node("Clip", clipped.name, inputs=[source, low, high], outputs=[clipped]))
        model.changed()
        return Change(len(model.encoder.layers), "clipped")


def test_a_clip_of_a_user_does_not_end_smoothing(model):
    """Nor is what `split-outliers` split smoothed where such a Clip stands between them."""
    plain, clipped = model.clone(), model.clone()
    smooth = Recipe.parse("fuse,smooth{gain=1}")
    expected = run_recipe(plain, smooth, trials(plain))[-1].details
    steps = (smooth.steps[0], Step(ClipOutliers()), smooth.steps[1])
    assert run_recipe(clipped, Recipe(steps), trials(clipped))[-1].details.keys() == expected.keys()
