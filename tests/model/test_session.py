"""Weights that lie in the model's file or beside it are mapped by ONNX Runtime, not copied."""

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import feeds, fixture
from onnx import TensorProto, helper, numpy_helper

from onnxslim_bert.graph.sessions import load, run, run_in_turn, session_options
from onnxslim_bert.graph.wire import place
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session

ROWS, WIDTH = 1 << 18, 64


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A model that looks up rows of a table of 67 MB in `data/`; row i holds i."""
    (tmp_path / "data").mkdir()
    rows = np.memmap(tmp_path / "data" / "table", np.float32, "w+", 4096, (ROWS, WIDTH))
    rows[:] = np.arange(ROWS)[:, None]
    table = TensorProto(name="table", dims=rows.shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "data/table"), ("offset", "4096"), ("length", str(rows.nbytes))):
        table.external_data.add(key=key, value=value)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])
    found = helper.make_tensor_value_info("found", TensorProto.FLOAT, ["rows", WIDTH])
    graph = helper.make_graph([helper.make_node("Gather", ["table", "ids"], ["found"])], "g", [ids], [found], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path := tmp_path / "m.onnx")
    return path


def written_inside(table: Path, values: np.ndarray, doc: str = "", name: str = "inside.onnx") -> Path:
    """The model of `table` with other rows, which lie in its own file."""
    proto = onnx.load(table, load_external_data=False)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "table"))
    proto.doc_string = doc
    path = table.parent / name
    path.write_bytes(proto.SerializeToString())
    return path


def own_bytes() -> int:
    """Bytes of memory that are this process's alone, no pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_table_beside_the_model_takes_no_memory(table):
    model = Model.load(table)
    before = own_bytes()
    session = model_session(model)
    (found,) = session.run(None, {"ids": np.array([5, ROWS - 1])})
    assert own_bytes() - before < ROWS * WIDTH  # a quarter of its bytes
    assert found[:, 0].tolist() == [5, ROWS - 1]


def test_a_table_that_was_replaced_is_not_read_from_the_file(table):
    """A part of it lies in the file, too, but elsewhere than the whole."""
    model = Model.load(table)
    whole = model.array("table")
    for values in (whole + 1, whole[7:11]):
        model.replace("table", values)
        (found,) = model_session(model).run(None, {"ids": np.array([2])})
        assert found[0, 0] == values[2, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("padding", range(4))
def test_a_table_in_the_model_takes_no_memory(padding, table):
    """Wherever it begins: a doc string of another length moves it."""
    inside = written_inside(table, np.arange(ROWS, dtype=np.float32).repeat(WIDTH).reshape(ROWS, WIDTH), "x" * padding)
    model = Model.load(inside)
    before = own_bytes()
    (found,) = model_session(model).run(None, {"ids": np.array([5, ROWS - 1])})
    assert own_bytes() - before < ROWS * WIDTH  # a quarter of its bytes
    assert found[:, 0].tolist() == [5, ROWS - 1]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_table_behind_links_takes_no_memory(table, tmp_path):
    """As the hub's cache has models and their data: links to files of other names elsewhere."""
    (tmp_path / "snapshot/data").mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    table.rename(tmp_path / "blobs/one")
    (tmp_path / "data/table").rename(tmp_path / "blobs/other")
    (tmp_path / "snapshot/m.onnx").symlink_to(tmp_path / "blobs/one")
    (tmp_path / "snapshot/data/table").symlink_to(tmp_path / "blobs/other")
    model = Model.load(tmp_path / "snapshot/m.onnx")
    before = own_bytes()
    (found,) = model_session(model).run(None, {"ids": np.array([5, ROWS - 1])})
    assert own_bytes() - before < ROWS * WIDTH  # a quarter of its bytes
    assert found[:, 0].tolist() == [5, ROWS - 1]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize("name", [b"\xff.onnx", "ü\u202e.onnx".encode(), b"*.onnx", b"..onnx", b"\xff/m.onnx"])
def test_a_model_of_any_name_runs(name, table):
    table.with_name(os.fsdecode(b"\xff")).mkdir()
    inside = written_inside(table, np.full((9, WIDTH), 3, np.float32), name=os.fsdecode(name))
    (found,) = model_session(Model.load(inside)).run(None, {"ids": np.array([2])})
    assert found[0, 0] == 3


@pytest.mark.parametrize("how", ["renamed", "written", "gone"])
def test_a_model_keeps_its_weights_when_its_file_gets_others(how, table, tmp_path):
    inside = written_inside(table, np.full((9, WIDTH), 3, np.float32))
    other = written_inside(table, np.full((9, WIDTH), 4, np.float32), name="other.onnx")
    model = Model.load(inside)
    assert place(model.array("table")) is not None
    if how == "renamed":
        other.rename(inside)
    elif how == "gone":
        inside.unlink()
    else:
        inside.unlink()
        inside.write_bytes(other.read_bytes())
    assert place(model.array("table")) is None
    (found,) = model_session(model).run(None, {"ids": np.array([2])})
    assert found[0, 0] == 3


def test_answers_in_turn_are_those_at_once():
    model = Model.load(fixture("bert-ts17-sdpa"))
    session = load(fixture("bert-ts17-sdpa"), session_options())
    names = [output.name for output in session.get_outputs()]
    for each in feeds(model), feeds(model, batch=1):
        for (name, one), expected, other in zip(run_in_turn(session, each), names, run(session, each), strict=True):
            assert name == expected
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["bert-ts17-sdpa", "quantized-qdq"])
def test_answers_are_those_of_weights_inside(name, tmp_path):
    """As handed over, in one session with weights that a pass has made."""
    inside = Model.load(fixture(name))
    proto = onnx.load(fixture(name))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=1024)
    beside = Model.load(tmp_path / "m.onnx")
    changed = next(key for key, constant in beside.constants().items() if constant.values.nbytes > 1024)
    for model in (inside, beside):
        model.replace(changed, model.array(changed).copy())
    for each in feeds(inside), feeds(inside, batch=1):
        ours, theirs = (model_session(model, optimize=False).run(None, each) for model in (beside, inside))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
