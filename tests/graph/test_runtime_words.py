"""What ONNX Runtime and onnx raise is said in one clause of ours, wherever it is caught."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import ROOT, run, workspace
from graphs import fixture
from onnx import numpy_helper

from onnxslim_bert.graph.runtime_words import NO_ARGUMENT, UNREADABLE, in_words
from onnxslim_bert.graph.sessions import session_options

LEAK = re.compile(
    r"ONNXRuntimeError|onnxruntime_src|\w\.(?:cc|cpp|h|hpp):\d|(?<!onnx)::|status code|types are supported|Protobuf"
    r"|InferenceError|schema\(|was false|parsing message|InvalidGraph|InvalidArgument"
)
LIBRARIES = {"onnx", "onnxruntime", "onnx_graphsurgeon"}
BROAD = {"Exception", "BaseException", "ValidationError", "InferenceError"}
EMULATED = ROOT / "onnxslim_bert/targets/arm64/runner.py"  # sends what it caught to session.py, which says it
Damage = Callable[[onnx.GraphProto], object]


def node(graph: onnx.GraphProto, operator: str) -> onnx.NodeProto:
    """The first node of an operator that reads weights, or else the first."""
    weights = {tensor.name for tensor in graph.initializer}
    found = [node for node in graph.node if node.op_type == operator]
    return next((node for node in found if weights & {*node.input}), found[0])


def weight(graph: onnx.GraphProto, operator: str) -> onnx.TensorProto:
    """The first weight that the node reads."""
    return next(tensor for tensor in graph.initializer if tensor.name in node(graph, operator).input)


def reshaped(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array([7, -1]), "seven"))
    node(graph, "Reshape").input[1] = "seven"


def as_double(tensor: onnx.TensorProto) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def renamed(graph: onnx.GraphProto, operator: str, name: str = "Nobody", domain: str = "") -> None:
    found = node(graph, operator)
    found.op_type, found.domain = name, domain


def cut(tensor: onnx.TensorProto) -> None:
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:-1], tensor.name))


DAMAGES: dict[str, Damage] = {
    "operator of nobody": lambda graph: renamed(graph, "Softmax"),
    "domain of nobody": lambda graph: renamed(graph, "Softmax", "Softmax", "some.body"),
    "operator of another domain": lambda graph: renamed(graph, "Softmax", "Softmax", "com.microsoft"),
    "an input too few": lambda graph: node(graph, "MatMul").input.pop(),
    "an input of nobody": lambda graph: node(graph, "MatMul").input.__setitem__(1, "gone"),
    "a circle": lambda graph: node(graph, "Erf").input.__setitem__(0, node(graph, "Erf").output[0]),
    "a type": lambda graph: as_double(weight(graph, "MatMul")),
    "a matrix of fewer rows": lambda graph: cut(weight(graph, "MatMul")),
    "a bias of fewer columns": lambda graph: cut(weight(graph, "Add")),
    "bytes that are missing": lambda graph: weight(graph, "MatMul").dims.__setitem__(0, 7),
    "an attribute": lambda graph: node(graph, "Softmax").attribute.extend([onnx.helper.make_attribute("odd", 1)]),
    "an axis": lambda graph: node(graph, "Softmax").attribute[0].__setattr__("i", 99),
    "a shape": reshaped,
    "a row of no table": lambda graph: cut(weight(graph, "Gather")),
}


def damaged(name: str, kind: str, path: Path) -> None:
    """The fixture with one of DAMAGES, at `path`."""
    proto = onnx.load(fixture(name))
    DAMAGES[kind](proto.graph)
    path.write_bytes(proto.SerializeToString())


def opened_and_run(path: Path) -> None:
    """Open the file in the runtime, and run it on ids beyond the table."""
    session = ort.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
    session.run(None, {given.name: np.full((2, 5), 36, np.int64) for given in session.get_inputs()})


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_the_runtime_raises_is_a_clause(tmp_path, kind):
    """It refuses to load the graph, or to run it on ids beyond a table; no code, place or signature is left of that."""
    damaged("bert-ts17-eager", kind, tmp_path / "model.onnx")
    with pytest.raises(Exception) as raised:  # noqa: PT011 the runtime's exceptions share no base
        opened_and_run(tmp_path / "model.onnx")
    said = in_words(raised.value)
    assert not LEAK.search(said), said
    assert len(said) > 10
    assert "\n" not in said


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize(
    "verb",
    [
        ("inspect", "--json"),
        ("slim", "-p", "canonicalize?,fuse?,prune-heads?", "--calib", "calib.tsv", "--json"),
        ("quantize", "--calib", "calib.tsv", "--json"),
        ("bench", "--json"),
    ],
    ids=lambda verb: verb[0],
)
def test_no_command_prints_what_the_runtime_raises(tmp_path, monkeypatch, verb, kind):
    """Neither in a report nor in an error, whether the graph fails at its load, in a part that is tried, or later."""
    workspace(tmp_path)
    damaged("bert-ts17-eager", kind, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    done = run(verb[0], "model.onnx", *verb[1:])
    assert done.code in (0, 2)
    assert not LEAK.search(done.out + done.err), done


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : "
            "Non-zero status code returned while running If node. Name:'a' Status Message: "
            "Non-zero status code returned while running Add node. Name:'' Status Message: /onnxruntime_src/core/x.h:5 "
            "std::function<void(int)> onnxruntime::A<T(int)>::B(int, (lambda)) const [with T = float] "
            "n == f(1) was false. Attempting to broadcast 5 by 20\n",
            "If node 'a': Add node: Attempting to broadcast 5 by 20",
        ),
        (r"D:\a\s\core\x.cc:7 onnxruntime::A::B(int) n > 0 was false.", "it needs n > 0"),
        ("Load model from m (1).onnx failed:Protobuf parsing failed.", UNREADABLE),
        (
            "__init__(): incompatible constructor arguments. The following argument types are supported: 1. x",
            NO_ARGUMENT,
        ),
        (
            "Odd at attention.py:12 ==> Context: Bad node spec for node. Name: a OpType: Add",
            "Add node 'a': Odd at attention.py:12",
        ),
        (
            "/github/workspace/onnx/BaseConverter.h:68: adapter_lookup: Assertion `false` failed: No Adapter",
            "No Adapter",
        ),
        (
            "[ShapeInferenceError] Inference error(s): (op_type:MatMul, node name: m): [ShapeInferenceError] Odd",
            "MatMul node 'm': Odd",
        ),
        ("the model takes x::y (2) was false", "the model takes x::y (2) was false"),
        ("[ONNXRuntimeError] : 1 : FAIL : This is an invalid model. Error: it has a circle.", "it has a circle"),
        ("", "str"),
    ],
)
def test_the_clause(raised, said):
    """Nodes come first, then what is wrong there; of a condition alone, what it needs; words of others stay."""
    assert in_words(raised) == said


def test_handlers_say_it_by_one_function():
    """Where onnx or ONNX Runtime is imported, what a broad handler caught is put into a message by `in_words` alone."""
    folders = (ROOT / "onnxslim_bert", ROOT / "passes", ROOT / "calibration")
    files = {path for folder in folders for path in folder.rglob("*.py") if not path.parent.is_symlink()} - {EMULATED}
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in spoken(ast.parse(path.read_text()))]
    assert not found, found


def test_a_handler_that_repeats_them_is_found():
    """The check of all handlers fails for one that formats what it caught, and not for one that asks what it is."""
    one = "import onnxruntime\ntry:\n    pass\nexcept Exception as error:\n    raise ValueError(SAID) from error\n"
    for said, lines in {
        "str(error)": [5],
        "f'{error}'": [5],
        "f'{in_words(error)}'": [],
        "'x' in str(error)": [],
    }.items():
        assert [*spoken(ast.parse(one.replace("SAID", said)))] == lines
    assert not [*spoken(ast.parse(one.replace("SAID", "str(error)").replace("onnxruntime", "json")))]


def spoken(module: ast.Module) -> Iterator[int]:
    """The lines at which broad handlers put what they caught into words themselves."""
    imports = [node for node in ast.walk(module) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names]
    if not LIBRARIES & {name.partition(".")[0] for name in names}:
        return
    for handler in ast.walk(module):
        if isinstance(handler, ast.ExceptHandler) and handler.type is not None and handler.name:
            kinds = {getattr(each, "attr", getattr(each, "id", "")) for each in ast.walk(handler.type)}
            if kinds & BROAD:
                yield from (line for part in handler.body for line in formats(part, handler.name))


def formats(part: ast.AST, name: str) -> Iterator[int]:
    """The lines of `part` that make text of `name`, other than to look for something in it."""
    if isinstance(part, ast.Compare):
        return
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id == name:
        yield part.lineno
    if isinstance(part, ast.Call) and getattr(part.func, "id", "") in ("str", "one_line", "repr"):
        yield from (
            part.lineno for given in part.args if name in {n.id for n in ast.walk(given) if isinstance(n, ast.Name)}
        )
    for child in ast.iter_child_nodes(part):
        yield from formats(child, name)
