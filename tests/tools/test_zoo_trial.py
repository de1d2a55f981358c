"""The trial of a zoo, and what its coordinator costs: the programs run, and see what they are there to see."""

import sys

import bench_zoo_scale
import pytest
import zoo_trial
from command_line import workspace

from onnxslim_bert.zoo.planning.zoo_file import parse_zoo


def test_every_model_gets_five_recipes_and_the_last_four(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        workspace(tmp_path / name)
    models = [tmp_path / "a" / "model.onnx", tmp_path / "b" / "model.onnx"]
    plan = parse_zoo(zoo_trial.zoo_of(models, "reviews"), tmp_path / "zoo.toml")
    assert len(plan.jobs) == 9
    assert {job.model for job in plan.jobs} == {"a", "b"}


def test_a_zoo_that_is_killed_ends_as_one_that_is_not(tmp_path, monkeypatch, capsys):
    model = workspace(tmp_path)
    given = [str(model), "--calib", "reviews", "--work", str(tmp_path / "work"), "--kills", "2"]
    monkeypatch.setattr(sys, "argv", ["zoo_trial.py", *given])
    zoo_trial.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("undisturbed: ")
    assert "4 jobs" in said[0]
    assert sum("all 4 files the same bytes" in line for line in said) == 2
    assert said[-1] == "  tasks begun more often than they were killed: 0"


def test_a_difference_is_seen():
    expected = {"a": "1", "b": "2"}
    assert zoo_trial.same({"a": "1", "b": "2"}, expected) == "all 2 files the same bytes"
    for found in ({"a": "1", "b": "3"}, {"a": "1"}, {"a": "1", "b": "2", "c": "3"}):
        assert zoo_trial.same(found, expected).startswith("1 of 2 files DIFFER")


def test_what_the_coordinator_costs_is_a_row_for_each_size(monkeypatch, capsys):
    pytest.importorskip("altair", reason="needs the extra [report]")
    monkeypatch.setattr(sys, "argv", ["bench_zoo_scale.py", "--models", "1,3"])
    bench_zoo_scale.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["1", "3"]
    assert all(row.count(" ms ") == 4 and row.endswith(" MB |") for row in rows)
