"""Names of other people's files are printed as they are: no markup is read in them, and no terminal obeys them."""

import sys

import pytest
from command_line import run, workspace

from onnxslim_bert.cli.screen import console, echo, plain_table
from onnxslim_bert.errors import DataError, printable

NAME = "[bold]model[v2]:smile:[/]"
WRITTEN = [("\x1b[2J", r"\x1b[2J"), ("\x9b31m", r"\x9b31m"), ("a\rb", r"a\rb"), ("\u202egnp", r"\u202egnp")]


def test_of_all_characters_none_that_a_terminal_obeys_is_left():
    """Lone surrogates, of names that are not UTF-8, are written out, too."""
    text = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert all(line.isprintable() for line in text.split("\n"))
    assert text.count("\n") == 1
    text.encode()


@pytest.mark.parametrize(("text", "shown"), [*WRITTEN, ("\udc80", r"\udc80"), ("naïve 文", "naïve 文")])
def test_control_characters_are_written_out(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("name", [NAME, *(f"a{name}b" for name, _ in WRITTEN)])
def test_tables_and_lines_show_names_as_they_are(name, capsys):
    table = plain_table("what", name)
    table.add_row(name, "x")
    console().print(table)
    console().print(name)
    echo(name)
    echo(name, err=True)
    printed = capsys.readouterr()
    assert printed.out.count(printable(name)) == 4
    assert printed.err == printable(name) + "\n"


def test_bench_lists_a_model_with_brackets_and_an_escape(tmp_path):
    workspace(tmp_path)
    path = (tmp_path / "model.onnx").rename(tmp_path / "model[v2]\x1b[31m.onnx")
    outcome = run("bench", path, "--rounds", 1, "--seq", 4)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(r"model[v2]\x1b[31m.onnx") == 2


def test_errors_and_advice_keep_brackets_and_lose_escapes(tmp_path):
    outcome = run("inspect", tmp_path / "no[v2]\x1b[31m.onnx")
    assert outcome.code == 2
    assert r"no[v2]\x1b[31m.onnx" in outcome.err


def test_doctor_names_the_extra(monkeypatch):
    advice = "openvino is not installed: pip install 'onnxslim-bert[openvino]'"

    def missing(*_: object, **__: object) -> None:
        raise DataError(advice)

    monkeypatch.setattr("onnxslim_bert.targets.doctor.open_on", missing)
    outcome = run("doctor")
    assert outcome.code == 5  # the CPU is not "missing" in earnest
    assert advice in outcome.out
