"""What one run of a model may take: memory and time that its size explains, and not more."""

import itertools
import resource
from collections.abc import Callable

import bombs
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from command_line import run, workspace
from onnx import helper

from onnxslim_bert.errors import BoundsError, ModelError
from onnxslim_bert.graph import bounds, patience, probe, sessions
from onnxslim_bert.graph.bounds import memory_within
from onnxslim_bert.graph.patience import renewed
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session

GB = 1 << 30
HALF = GB // 2
X = np.ones(3, np.float32)


def model(node: onnx.NodeProto, *more: onnx.NodeProto) -> bytes:
    """A model of one float vector "x", whose nodes write "y"."""
    vector = [helper.make_tensor_value_info("x", 1, ["n"])], [helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph([node, *more], "g", *vector)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return made


def endless() -> onnx.NodeProto:
    """A loop that goes on while a number is above -1, which it always is."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Size", ["v"], ["size"]), helper.make_node("Greater", ["size", "low"], ["go"])],
        "body",
        [info("i", 7, []), info("c", 9, []), info("v", 1, ["n"])],
        [info("go", 9, []), info("v", 1, ["n"])],
        [helper.make_tensor("low", 7, [], [-1])],
    )
    return helper.make_node("Loop", ["", "", "x"], ["y"], body=body)


def doubled(times: int) -> list[onnx.NodeProto]:
    """Nodes that write "y", the vector "x" doubled in length so many times."""
    names = ["x", *(f"x.{i}" for i in range(1, times)), "y"]
    return [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]


def opened(data: bytes):
    return sessions.load(data, sessions.session_options())


def test_a_loop_that_never_ends_is_ended():
    session = opened(model(endless()))
    said = r"runs longer than \d s on x \[3\], where 0\.1 s are usual; it may never end"
    with renewed(seconds=0.3), pytest.raises(BoundsError, match=said):
        sessions.run(session, {"x": X})


def test_a_run_that_asks_for_gigabytes_is_refused_and_the_next_runs():
    session = opened(model(*doubled(31)))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(
        BoundsError, match=r"takes more than 0\.5 GB of memory on x \[3\], and its size explains no more"
    ):
        sessions.run(session, {"x": X})
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    (made,) = sessions.run(session, {"x": X[:0]})
    assert made.shape == (0,)


def test_constants_in_a_branch_may_not_unfold_to_gigabytes():
    many = [
        helper.make_node("ConstantOfShape", ["sizes"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["top"]),
    ]
    branch = helper.make_graph(
        many, "b", [], [helper.make_empty_tensor_value_info("top")], [helper.make_tensor("sizes", 7, [3], [2048] * 3)]
    )
    size = helper.make_node("Size", ["x"], ["size"])
    condition = helper.make_node("Cast", ["size"], ["condition"], to=9)
    data = model(size, condition, helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch))
    with pytest.raises(BoundsError, match=r"memory|to load"):
        sessions.run(opened(data), {"x": X})


@pytest.mark.parametrize("nodes", [[endless()], doubled(31)], ids=["endless", "large"])
def test_a_region_that_is_probed_is_held_to_the_same(nodes):
    """BoundsError and not ValueError: whoever probes must not go on to the next region as if this were no match."""
    graph = gs.import_onnx(onnx.ModelProto.FromString(model(*nodes)))
    with renewed(seconds=0.3), pytest.raises(BoundsError):
        probe.run(graph.nodes, {"x": X}, graph.outputs[0], probe.opsets_of(graph))


def test_what_onnxruntime_refuses_for_another_reason_is_said_as_it_was():
    session = opened(model(helper.make_node("Reshape", ["x", "s"], ["y"]), *_shape([2, 2])))
    with pytest.raises(ModelError, match="does not run"):
        sessions.run(session, {"x": X})


def _shape(sizes: list[int]) -> list[onnx.NodeProto]:
    return [helper.make_node("Constant", [], ["s"], value_ints=sizes)]


def test_larger_models_and_more_tokens_may_take_more(monkeypatch):
    """0.1 s and 0.5 GB for 3 values; 40 MB and 8 rows of 128 tokens: 1.5 GB and 104 s, as the docstring says."""
    memory: list[float] = []
    usual: list[float] = []
    monkeypatch.setattr(
        bounds, "memory_within", lambda nbytes, said: memory.append(nbytes) or memory_within(nbytes, said)
    )
    watched = bounds.patience.for_call
    monkeypatch.setattr(
        bounds.patience, "for_call", lambda seconds, *rest: usual.append(seconds) or watched(seconds, *rest)
    )
    identity = helper.make_node("Identity", ["x"], ["y"])
    small = opened(model(identity))
    rows = helper.make_graph(
        [identity], "g", [helper.make_tensor_value_info("x", 1, ["b", "s"])], [helper.make_empty_tensor_value_info("y")]
    )
    large = opened(
        helper.make_model(rows, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )
    memory.clear()
    usual.clear()
    bounds.run_within(small, None, {"x": X}, 0)
    bounds.run_within(large, None, {"x": np.ones((8, 128), np.float32)}, 40_000_000)
    assert memory == pytest.approx([0.54e9, 1.5e9], rel=0.05)
    assert usual == pytest.approx([0.103, 103.5], rel=0.01)


def test_a_limit_that_is_there_already_stays():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_within(GB, "one"), memory_within(1, "two"):  # the second would leave no room at all
        outer = resource.getrlimit(resource.RLIMIT_DATA)[0]
        assert outer > GB
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


BOMBS = {
    **{f"input bomb {seed}": (bombs.input_bomb, seed) for seed in range(6)},
    **{f"branch bomb {seed}": (bombs.branch_bomb, seed) for seed in range(3)},
    **{f"loop {seed}": (bombs.loop, seed) for seed in range(8)},
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("command", ["quantize {} --mode dynamic", "validate {0} {0} --data eval.tsv"])
def test_models_that_ask_for_much_are_refused_in_a_line_or_run(tmp_path, monkeypatch, name, command):
    monkeypatch.setattr(patience, "SHARED", 1.0)
    monkeypatch.setattr(patience, "GRACE", 1000)  # what is stuck ends the process, which is this one
    made: tuple[Callable, int] = BOMBS[name]
    path = workspace(tmp_path)
    proto = onnx.load(path)
    made[0](proto, np.random.default_rng(made[1]))
    onnx.save(proto, path)
    monkeypatch.chdir(tmp_path)
    ended = run(*command.format(path.name).split())
    assert ended.code in (0, 2)
    assert ended.code == 0 or len(ended.err.strip().splitlines()) == 1
    assert "out of memory" not in ended.err, "it is the bound on this model that is met, and no limit of the system"


@pytest.mark.parametrize("in_memory", [False, True])
def test_each_node_explains_a_part_of_the_load(monkeypatch, tmp_path, in_memory):
    """A chain of ten thousand takes ONNX Runtime seconds, in float16 five; a small graph may take one."""
    usual: list[float] = []
    watched = bounds.patience.for_call
    monkeypatch.setattr(
        bounds.patience, "for_call", lambda seconds, *rest: usual.append(seconds) or watched(seconds, *rest)
    )
    found = []
    for count in (1, 101):
        ends = ["x", *(f"t{number}" for number in range(count - 1)), "y"]
        path = tmp_path / f"{count}.onnx"
        proto = onnx.load_from_string(model(*(helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(ends))))
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n"]))
        onnx.save(proto, path)
        loaded = Model.load(path)
        usual.clear()
        if in_memory:
            model_session(loaded)
        else:
            sessions.open_session(path)
        found += usual
    assert found[1] - found[0] == pytest.approx(100 * bounds.A_LOADED_NODE, rel=1e-3)


def test_threads_take_no_part_of_the_bound():
    """Each reserves addresses for what it may allocate, more than a small model's bound: 100 of them are no fault."""
    node = helper.make_node("Identity", ["x"], ["y"])
    session = sessions.load(model(node), sessions.session_options(threads=100))
    (made,) = sessions.run(session, {"x": X})
    assert made.tolist() == X.tolist()


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_a_limit_of_the_system_is_not_called_ours(limit):
    before, mapped = resource.getrlimit(limit), int(bounds.PAGES.read_text().split()[bounds.MAPPED])
    try:
        resource.setrlimit(limit, (mapped * resource.getpagesize() + HALF, before[1]))
        with pytest.raises(MemoryError), memory_within(64 * GB, "the model takes more"):
            raise MemoryError
    finally:
        resource.setrlimit(limit, before)
    said = r"^the model takes more, and its size explains no more$"
    with pytest.raises(BoundsError, match=said), memory_within(GB, "the model takes more"):
        np.ones(16 * GB, np.uint8)
