"""A folder of models becomes a zoo file that can be run as it is."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from command_line import assert_refused, run, workspace, write_tokenizer
from graphs import fixture

from onnxslim_bert.errors import DataError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.recipes.provenance import Provenance, stamp
from onnxslim_bert.zoo.engines import process
from onnxslim_bert.zoo.planning import find_encoders
from onnxslim_bert.zoo.planning.init import propose
from onnxslim_bert.zoo.planning.zoo_file import read_zoo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `models` with encoders and other things in it."""
    top = tmp_path / "models"
    put(top / "bert" / "a.onnx", "bert-ts17-sdpa")
    put(top / "bert" / "b.onnx", "bert-dynamo20-eager")
    write_tokenizer(top / "bert")
    put(top / "odd [x]" / "onnx" / "model.onnx", "distilbert-ts17-eager")
    write_tokenizer(top / "odd [x]")
    put(top / "mixed" / "good.onnx", "bert-ts17-sdpa")
    put(top / "mixed" / "cnn.onnx", "cnn")
    put(top / "mixed" / "int8.onnx", "quantized-dynamic")
    (top / "mixed" / "cut.onnx").write_bytes(fixture("bert-ts17-sdpa").read_bytes()[:-999])
    ours = Model.load(fixture("bert-ts17-sdpa"))
    stamp(ours, Provenance.of(fixture("bert-ts17-sdpa"), "ab", "fuse", None))
    ours.save(top / "mixed" / "ours.onnx")
    write_tokenizer(top / "mixed")
    put(top / "alone" / "model.onnx", "bert-ts17-sdpa")
    put(top / "large" / "model.onnx", "bert-ts17-sdpa")
    write_tokenizer(top / "large", [f"word{number}" for number in range(99)])
    put(top / ".hidden" / "model.onnx", "bert-ts17-sdpa")
    put(top / "out" / "models" / "model.onnx", "bert-ts17-sdpa")
    (top / "out" / "zoo.sqlite").touch()
    return top


def put(path: Path, name: str) -> None:
    """The fixture `name` at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fixture(name).read_bytes())


def spoil(path: Path, change: Callable[[onnx.GraphProto], object]) -> None:
    """Write a fixture with one change to its graph to `path`."""
    model = onnx.load(fixture("bert-ts17-sdpa"))
    change(model.graph)
    path.write_bytes(model.SerializeToString())


def repeat_a_sum(graph: onnx.GraphProto) -> None:
    """Let the last Add be there twice."""
    at = max(index for index, node in enumerate(graph.node) if node.op_type == "Add")
    nodes = [*graph.node[: at + 1], *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(nodes)


def test_what_is_found_is_proposed_and_read(folder):
    at = folder.parent / "zoo.toml"
    proposal = propose(folder, at)
    at.write_text(proposal.text)
    assert read_zoo(at) == proposal.plan
    jobs = {Path(job.source).relative_to(folder.parent).as_posix(): job for job in proposal.plan.jobs}
    assert list(jobs) == [
        "models/bert/a.onnx",
        "models/bert/b.onnx",
        "models/mixed/good.onnx",
        "models/odd [x]/onnx/model.onnx",
    ]
    assert {job.sources.calibration for job in proposal.plan.jobs} == {"reviews"}
    assert jobs["models/odd [x]/onnx/model.onnx"].sources.tokenizer == folder.parent / "models/odd [x]"
    assert jobs["models/bert/a.onnx"].sources.tokenizer is None
    assert 'path = "models/bert/*.onnx"  # 2 models' in proposal.text
    assert 'path = "models/mixed/good.onnx"\n' in proposal.text


def test_a_file_that_crashes_its_reader_or_keeps_it_for_long_is_left_out(folder, monkeypatch):
    """And the others are found. Of a node that is there twice, a reader may never be done."""
    monkeypatch.setattr("onnxslim_bert.zoo.planning.find_encoders.SECONDS", 15)
    spoil(folder / "mixed" / "twice.onnx", repeat_a_sum)
    spoil(folder / "mixed" / "untyped.onnx", lambda graph: setattr(graph.initializer[0], "data_type", 99))
    spoil(folder / "mixed" / "minus.onnx", lambda graph: graph.initializer[0].dims.append(-1))
    proposal = propose(folder, folder.parent / "zoo.toml")
    found = {Path(job.source).name for job in proposal.plan.jobs}
    reasons = {item.path.name: item.reason for item in proposal.left_out}
    assert {"a.onnx", "b.onnx", "good.onnx", "model.onnx"} <= found
    assert {"untyped.onnx", "minus.onnx"} <= reasons.keys()
    assert ("twice.onnx" in found) != ("twice.onnx" in reasons)
    assert all(reason and "\n" not in reason for reason in reasons.values())


def test_one_process_looks_at_many_files_and_more_where_files_end_it(tmp_path, monkeypatch):
    """Of six files, two of which end a process: one for all, one alone for each of the two, one for those behind it."""
    for name in "abcdef":
        put(tmp_path / f"{name}.onnx", "bert-ts17-sdpa")
    write_tokenizer(tmp_path)
    started, start, ending = [], process.start, set[str]()
    monkeypatch.setattr(process, "start", lambda line, *rest: (started.append(line), start(line, *rest))[1])
    look = find_encoders._look
    monkeypatch.setattr(
        find_encoders, "_look", lambda path, top: os._exit(9) if path.stem in ending else look(path, top)
    )
    assert [len(files) for files in find_encoders.find_encoders(tmp_path)] == [6, 0]
    assert len(started) == 1
    ending |= {"b", "e"}
    found, left = find_encoders.find_encoders(tmp_path)
    assert [model.path.stem for model in found] == [*"acdf"]
    assert [item.path.stem for item in left] == [*"be"]
    assert all("9" in item.reason for item in left)
    assert len(started) == 1 + 1 + 2 + 2


def test_a_file_that_cannot_be_read_is_a_model_where_that_is_asked_for(folder):
    """So `zoo run FOLDER` has a row for it, as where a zoo file names it; what is read and is no encoder stays out."""
    proposal = propose(folder, folder / "zoo.toml", unreadable=True)
    jobs = {Path(job.source).relative_to(folder).as_posix() for job in proposal.plan.jobs}
    assert {"mixed/cut.onnx", "mixed/good.onnx", "bert/a.onnx"} <= jobs
    left = {item.path.relative_to(folder).as_posix() for item in proposal.left_out}
    assert left == {"alone/model.onnx", "large/model.onnx", "mixed/cnn.onnx", "mixed/int8.onnx", "mixed/ours.onnx"}


def test_a_folder_with_a_file_that_cannot_be_read_fails_with_a_row_that_says_why(tmp_path, monkeypatch):
    top = tmp_path / "models"
    top.mkdir()
    write_tokenizer(top)
    (top / "cut.onnx").write_bytes(fixture("bert-ts17-sdpa").read_bytes()[:-999])
    monkeypatch.chdir(tmp_path)
    outcome = run("zoo", "run", top, "-o", "out", "--json", "--jobs", "1")
    assert outcome.code == 2, outcome.err
    (row,) = json.loads(outcome.out)["rows"]
    assert (row["model"], row["status"]) == ("cut", "failed")
    assert "not a complete ONNX file" in row["message"]


def test_a_file_whose_name_is_no_text_is_left_out(folder):
    """TOML is UTF-8."""
    try:
        path = Path(os.fsdecode(os.fsencode(folder / "bert") + b"/\xff.onnx"))
        path.write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such name")
    at = folder.parent / "zoo.toml"
    outcome = run("zoo", "init", folder, "-o", at)
    assert outcome.code == 0, outcome.err
    assert r"\udcff.onnx: its name is not UTF-8" in outcome.out
    assert len(read_zoo(at).jobs) == 4


def test_what_is_left_out_is_named_with_its_reason(folder):
    (folder / "mixed" / "gone.onnx").symlink_to("nowhere")
    os.mkfifo(folder / "mixed" / "pipe.onnx")
    proposal = propose(folder, folder / "zoo.toml")
    reasons = {item.path.relative_to(folder).as_posix(): item.reason for item in proposal.left_out}
    expected = {
        "alone/model.onnx": "no tokenizer.json beside it or above it",
        "large/model.onnx": "tokenizer has 103 tokens, embedding has 37 rows",
        "mixed/cnn.onnx": "not a transformer encoder",
        "mixed/cut.onnx": "not a complete ONNX file",
        "mixed/gone.onnx": "no such file",
        "mixed/pipe.onnx": "not a regular file",
        "mixed/int8.onnx": "quantized already (DequantizeLinear)",
        "mixed/ours.onnx": "written by onnxslim-bert",
    }
    assert set(reasons) == set(expected)
    for name, part in expected.items():
        assert part in reasons[name]
        assert f'#   "{name}": ' in proposal.text


def test_every_line_that_is_commented_out_is_right(folder):
    """The offers of a proposal can be taken: without its # signs it is a zoo file, too."""
    offered, _, _ = propose(folder, folder / "zoo.toml").text.partition("# Left out")
    taken = re.sub(r"^# (?=\[|[a-z-]+ = )", "", offered, flags=re.MULTILINE)
    assert taken.count("#") < offered.count("#")
    (folder / "zoo.toml").write_text(taken)
    jobs = read_zoo(folder / "zoo.toml").jobs
    assert {job.recipe for job in jobs} == {"int8", "small"}
    assert (jobs[0].memory, jobs[0].timeout, jobs[0].budgets.max_drop) == (4_000_000_000, 1800.0, 1.0)


def test_a_folder_is_planned_as_its_zoo_file_would_be(folder):
    write_tokenizer(folder / "alone")
    proposal = propose(folder, folder / "zoo.toml")
    (folder / "zoo.toml").write_text(proposal.text)
    assert proposal.plan == read_zoo(folder / "zoo.toml")
    assert len(proposal.plan.jobs) == 5


def test_calibration_texts_can_be_named(tmp_path):
    workspace(tmp_path)
    at = tmp_path / "sub" / "zoo.toml"
    at.parent.mkdir()
    proposal = propose(tmp_path, at, str(tmp_path / "calib.tsv"))
    assert 'calib = "../calib.tsv"' in proposal.text
    assert "built-in" not in proposal.text
    assert proposal.plan.jobs[0].sources.evaluation is None
    with pytest.raises(DataError, match=r"no named set, and no file revews, did you mean 'reviews'\?"):
        propose(tmp_path, at, "revews")


def test_a_name_that_toml_must_quote(tmp_path):
    workspace(tmp_path)
    (tmp_path / "model.onnx").rename(tmp_path / 'a "b" \x7f #.onnx')
    at = tmp_path / "zoo.toml"
    at.write_text(propose(tmp_path, at).text, encoding="utf-8")
    assert read_zoo(at).jobs[0].source == str(tmp_path / 'a "b" \x7f #.onnx')


def test_a_folder_without_encoders_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no encoder found \(no \.onnx file\)"):
        propose(tmp_path, tmp_path / "zoo.toml")
    put(tmp_path / "cnn.onnx", "cnn")
    with pytest.raises(DataError, match=r"no encoder found .*cnn.onnx: not a transformer encoder"):
        propose(tmp_path, tmp_path / "zoo.toml")


def test_the_command_writes_the_file_once(folder):
    target = folder.parent / "zoo.toml"
    outcome = run("zoo", "init", folder, "-o", target)
    assert outcome.code == 0, outcome
    assert "4 models, calibrated on reviews" in outcome.out
    assert f"left out {folder}/mixed/cnn.onnx: not a transformer encoder" in outcome.out
    before = target.read_text()
    assert len(read_zoo(target).jobs) == 4
    assert_refused(run("zoo", "init", folder, "-o", target), "exists", "--force")
    assert target.read_text() == before
    assert run("zoo", "init", folder, "-o", target, "--force").code == 0
