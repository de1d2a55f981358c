"""The command line starts light, helps, and says what went wrong in one line."""

import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from command_line import assert_refused, environment, run, run_process, run_python, workspace

import onnxslim_bert
from onnxslim_bert import cli
from onnxslim_bert.errors import AccuracyGateError, DataError, LatencyGateError, SizeGateError
from onnxslim_bert.job.search.search_folder import SearchFolder
from onnxslim_bert.job.unfinished import UnfinishedFolder
from onnxslim_bert.passes import PASSES

HEAVY = (
    *("numpy", "onnx", "onnxruntime", "onnx_graphsurgeon", "transformers", "tokenizers", "torch", "pyarrow"),
    *("huggingface_hub", "rich"),
)
HELP = f"""
import sys
from onnxslim_bert.cli import main
main(sys.argv[1:])
print("heavy:", [name for name in {HEAVY} if name in sys.modules])
"""


@pytest.fixture
def failing(monkeypatch):
    """`failing(error)`: from then on the command `passes` raises it."""

    def fail_with(error: BaseException) -> None:
        def invoke(*_: object) -> None:
            raise error

        monkeypatch.setattr(cli.cli, "get_command", lambda ctx, name: cli.click.Command(name, callback=invoke))

    return fail_with


# help


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in cli.COMMANDS)], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    """That is what keeps it quick: well under 0.1 s of CPU time, where numpy alone takes as long."""
    assert run_python(HELP, *arguments).splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_an_example_and_explains_every_option(name):
    command = cli.cli.get_command(None, name)
    text = CliRunner().invoke(cli.cli, [name, "--help"], prog_name="onnxslim", terminal_width=200).output
    assert re.search(rf"^  onnxslim {name} \S", text, re.MULTILINE)
    for param in command.params:
        if isinstance(param, cli.click.Option):
            assert param.help, f"{name} {param.opts[0]} has no help"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_example_parses(name, monkeypatch):
    """The lines in the help are commands that run: with these options, spelled so."""
    command = cli.cli.get_command(None, name)
    monkeypatch.setattr(cli.click.Path, "convert", lambda self, value, param, ctx: value)
    examples = re.findall(rf"^ *onnxslim {name}(.*)$", command.help, re.MULTILINE)
    assert examples
    for example in examples:
        arguments = [word.strip('"') for word in example.split(" > ")[0].split()]
        command.make_context(name, arguments, parent=cli.click.Context(cli.cli, **cli.cli.context_settings))


def test_without_a_command_the_help_is_printed():
    bare, asked = run(), run("--help")
    assert (bare.code, bare.err) == (0, "")
    assert bare.out == asked.out == run("-h").out
    for name, line in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{line.split()[0]}", bare.out, re.MULTILINE)


def test_the_version_is_the_package_s():
    assert onnxslim_bert.__version__ in run("--version").out


def test_help_has_a_short_name_everywhere():
    assert run("passes", "-h").out == run("passes", "--help").out


def test_the_table_of_passes():
    """All of them with a sentence each, and one with its options."""
    table, one = run("passes"), run("passes", "quantize-static")
    assert [line.split()[0] for line in table.out.splitlines()] == list(PASSES)
    assert all(len(line.split()) > 3 for line in table.out.splitlines())
    assert "method=minmax, format=contrib" in one.out
    assert_refused(run("passes", "quantise-static"), "did you mean 'quantize-static'?")


def test_the_recipes_that_ship():
    """All of them with a sentence each, and one step by step, which `slim` runs by name."""
    table, one = run("recipes"), run("recipes", "exact")
    assert all(line.startswith("@") and len(line.split()) > 3 for line in table.out.splitlines())
    assert one.out.splitlines() == ["canonicalize?", "fuse?", "first-token?"]
    assert one.out == run("recipes", "@exact").out
    assert_refused(run("recipes", "exakt"), "no recipe '@exakt', did you mean 'exact'?")


# what is wrong with a call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantise", "m.onnx"], "no command 'quantise', did you mean 'quantize'? (see onnxslim --help)"),
        (["xyzzy"], "No such command 'xyzzy'"),
        (["quantize"], "Missing argument 'MODEL'. (see onnxslim quantize --help)"),
        (["quantize", "m.onnx", "--calip", "sst2"], "--calib"),
        (["quantize", "m.onnx", "--rows", "0"], "'--rows': 0 is not in the range"),
        (["quantize", "m.onnx", "--rows", "many"], "'--rows': 'many' is not a valid integer"),
        (["quantize", "m.onnx", "--max-length", "-1"], "'--max-length': -1 is not in the range"),
        (["quantize", "m.onnx", "--threads", "0"], "'--threads': 0 is not in the range"),
        (["quantize", "m.onnx", "--seed", "-1"], "'--seed': -1 is not in the range"),
        (["quantize", "m.onnx", "--method", "max"], "'--method': 'max' is not one of 'minmax'"),
        (["quantize", "m.onnx", "--mode", "int4"], "'--mode': 'int4' is not one of 'static'"),
        (["slim", "m.onnx", "-o", "o.onnx"], "give either a recipe (-p) or a target"),
        (["slim", "m.onnx", "-p", "fuse"], "give either -o OUTPUT or --in-place"),
        (["slim", "m.onnx", "-p", "fuse", "-o", "o.onnx", "--in-place"], "give either -o OUTPUT or --in-place"),
        (["bench", "gone.onnx"], "File 'gone.onnx' does not exist"),
        (["bench"], "Missing argument 'MODEL...'"),
        (["inspect", "m.onnx", "--seq", "0"], "'--seq': 0 is not in the range"),
        (["export", "folder"], "Missing option '-o' / '--output'"),
    ],
)
def test_a_wrong_call_is_one_line(arguments, message):
    assert_refused(run(*arguments), message)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--max-drop", value) for value in ("nan", "inf", "101")),
        *(("--min-agreement", value) for value in ("nan", "101", "-1")),
        *(("--min-speedup", value) for value in ("nan", "-1")),
        ("--max-size", "big"),
    ],
)
def test_a_budget_that_nothing_can_meet_or_miss_is_refused(tmp_path, option, value):
    model = workspace(tmp_path)
    assert_refused(run("validate", model, model, "--data", tmp_path / "eval.tsv", option, value), value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quantize", "--mode", "dynamic", "--method", "mse"], "--method does nothing with --mode dynamic"),
        (["quantize", "--mode", "fp16", "--method", "mse"], "--method does nothing with --mode fp16"),
        (["quantize", "--mode", "dynamic", "--no-smooth"], "--no-smooth does nothing with --mode dynamic"),
        (["quantize", "--mode", "fp16", "--format", "qdq"], "--format qdq does nothing with --mode fp16"),
        (
            ["quantize", "--mode", "weight-only", "--format", "newest"],
            "--format newest does nothing with --mode weight-",
        ),
        (["quantize", "--mode", "dynamic", "--calib", "reviews"], "--calib does nothing with --mode dynamic"),
        (["quantize", "--mode", "dynamic", "--rows", "9"], "--rows does nothing without --calib"),
        (["quantize", "--mode", "dynamic", "--tokenizer", "t"], "--tokenizer does nothing without --calib or --data"),
        (["quantize", "--mode", "dynamic", "--text-column", "t"], "--text-column does nothing without --calib or"),
        (["quantize", "--mode", "dynamic", "--task", "tags"], "--task does nothing without --calib or --data"),
        (["slim", "-p", "fuse", "-o", "o.onnx", "--output-name", "y"], "--output-name does nothing without --calib or"),
        (["quantize", "--mode", "fp16", "--label-column", "t"], "--label-column does nothing without --data"),
        (["quantize", "--calib", "reviews", "--in-place", "-o", "o.onnx"], "--output does nothing with --in-place"),
        (["slim", "-p", "fuse", "-o", "o.onnx", "--rows", "9"], "--rows does nothing without --calib"),
        (["slim", "-p", "fuse", "-o", "o.onnx", "--threads", "2"], "--threads does nothing without --calib"),
        (["slim", "-p", "fuse", "-o", "o.onnx", "--calib", "reviews"], "--calib does nothing: no pass of fuse reads"),
        (["distill", "--student", "bilstm", "--dry-run", "--max-drop", "1"], "--max-drop does nothing with --dry-run"),
        (["distill", "--student", "bilstm", "--dry-run", "--rows", "9"], "--rows does nothing with --dry-run"),
        (
            ["distill", "--student", "bilstm", "--calib", "reviews", "-o", "o.onnx", "--label-column", "t"],
            "--label-column does nothing without --data",
        ),
        (
            ["slim", "--target-size", "1MB", "-o", "o.onnx", "--keep-steps", "s"],
            "--keep-steps does nothing with a target",
        ),
        (["bench", "--tokenizer", "."], "--tokenizer does nothing without --data"),
        (["bench", "--max-length", "9"], "--max-length does nothing without --data"),
        (["bench", "--data", "reviews", "--seq", "9"], "--data times texts at their own lengths"),
        (["validate", "--data", "reviews", "--force"], "--force does nothing without --junit"),
    ],
)
def test_no_option_is_read_and_ignored(tmp_path, monkeypatch, arguments, message):
    """What would do nothing is refused, before any work."""
    model = workspace(tmp_path)
    monkeypatch.chdir(tmp_path)
    models = [model, model] if arguments[0] == "validate" else [model]
    assert_refused(run(arguments[0], *models, *arguments[1:]), message)


# what goes wrong at work


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("rows are\n  wrong"), 2, "rows are wrong"),
        (AccuracyGateError("too far"), 3, "too far"),
        (LatencyGateError("too slow"), 4, "too slow"),
        (SizeGateError("too large"), 6, "too large"),
        (KeyboardInterrupt(), 130, "interrupted; nothing was written"),
        (MemoryError(), 2, "out of memory"),
        (OSError(28, "No space left on device", "/tmp/x"), 2, "/tmp/x: No space left on device"),
        (OSError(5, "Input/output error"), 2, "Input/output error"),
        (OSError("something about a socket"), 2, "something about a socket"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_code(failing, error, code, message):
    failing(error)
    outcome = run("passes")
    assert (outcome.code, outcome.out) == (code, "")
    assert re.fullmatch(r"onnxslim: [^\n]+\n", outcome.err)
    assert message in outcome.err


def test_a_target_that_is_missed_shows_what_was_found(failing):
    """Before the line that says so, and not on stdout, where a document may be expected."""
    failing(LatencyGateError("too slow", ["   speed", "1  3.37x"]))
    outcome = run("passes")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err.splitlines() == ["   speed", "1  3.37x", "onnxslim: too slow"]


@pytest.mark.parametrize(
    ("begin", "kept"),
    [
        (lambda folder: SearchFolder(folder / "small.search", "key"), "small.search"),
        (lambda folder: UnfinishedFolder(folder / "small.unfinished").put("0" * 64, {}), "small.unfinished"),
    ],
    ids=["search", "training"],
)
def test_an_interrupt_says_where_the_same_command_goes_on(tmp_path, monkeypatch, begin, kept):
    """The first time, when the folder was made, as well as later; and not once the folder is gone."""

    def work(*_: object, **named: object) -> None:
        begin(tmp_path)
        raise KeyboardInterrupt

    def ended(*_: object, **named: object) -> None:
        held = begin(tmp_path) or UnfinishedFolder(tmp_path / kept)
        held.remove()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.cli, "main", work)
    for _ in range(2):
        goes_on = f"the same command goes on from what {tmp_path / kept} holds"
        assert run("slim").err == f"onnxslim: interrupted; nothing was written; {goes_on}\n"
    monkeypatch.setattr(cli.cli, "main", ended)
    assert run("slim").err == "onnxslim: interrupted; nothing was written\n"


@pytest.mark.parametrize(("variables", "shown"), [({}, False), ({"PYTHONWARNINGS": "default"}, True)])
def test_warnings_of_libraries_are_shown_to_who_asks_for_them(variables, shown):
    code = """
import warnings
from onnxslim_bert import cli
cli.cli.main = lambda *_, **__: warnings.warn("divided by zero", RuntimeWarning)
cli.main([])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(**variables), check=True
    )
    assert ("divided by zero" in done.stderr) is shown


def test_what_nobody_foresaw_keeps_its_traceback(failing):
    """Exit code 1, and something to report."""
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run("passes")


@pytest.mark.parametrize(
    "command", [("validate", "{model}", "{model}", "--data", "{rows}"), ("bench", "{model}", "--data", "{rows}")]
)
def test_a_length_that_is_too_long_is_said_by_every_command(tmp_path, command):
    """What a row was cut to; nothing is said of a length that serves, nor of one that nobody asked for."""
    model = workspace(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 20}')
    arguments = [part.format(model=model, rows=tmp_path / "eval.tsv") for part in command]
    arguments += ["--rounds", "1"] * (command[0] == "bench")
    assert "--max-length 21: the model serves 20 tokens a row" in run(*arguments, "--max-length", "21").out
    for options in ((), ("--max-length", "20")):
        outcome = run(*arguments, *options)
        assert outcome.code == 0, outcome.err
        assert "serves" not in outcome.out


def test_a_reader_who_leaves_is_no_error():
    """`onnxslim passes | head -1`."""
    command = [sys.executable, "-m", "onnxslim_bert", "passes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() != 0


# one program, several names


@pytest.mark.parametrize("options", [(), ("-P",)])
def test_code_in_the_current_folder_is_not_run(tmp_path, options):
    """Modules that are called as this program's own, and those of what it uses."""
    for name in ("click", "numpy", "onnx", "onnxruntime", "rich", "tokenizers", "onnx_graphsurgeon", "flatbuffers"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    workspace(tmp_path)
    command = [sys.executable, *options, "-m", "onnxslim_bert", "mobile", "model.onnx", "-o", "phone"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_python_m_is_the_same_program():
    assert run_process("--version").out == run("--version").out


@pytest.fixture
def neighbour(tmp_path):
    """A folder in which the other package, OnnxSlim, is installed."""
    info = tmp_path / "onnxslim-0.1.71.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: OnnxSlim\nVersion: 0.1.71\n")
    return tmp_path


def test_a_clash_with_the_other_onnxslim_is_explained_once(neighbour):
    """On stderr, so that stdout stays what was asked for; the run goes on."""
    both = os.pathsep.join((environment()["PYTHONPATH"], str(neighbour)))
    outcome = run_process("passes", PYTHONPATH=both)
    assert (outcome.code, outcome.out) == (0, run("passes").out)
    assert outcome.err.count("\n") == 1
    assert "the package OnnxSlim 0.1.71 installs a script of the same name" in outcome.err
    assert "python -m onnxslim_bert" in outcome.err
    assert run_process("passes", PYTHONPATH=both, ONNXSLIM_BERT_QUIET="1").err == ""


def test_alone_it_warns_of_nothing():
    assert run_process("passes").err == ""
