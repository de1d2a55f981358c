"""No option is parsed and ignored: what a command does not read is refused when it is given."""

import contextlib
import dis
import inspect
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import click
import pytest
from command_line import assert_refused, run, workspace

from onnxslim_bert.cli import cli
from onnxslim_bert.cli.folder_options import FolderOptions
from onnxslim_bert.cli.gate_options import BUDGETS
from onnxslim_bert.cli.reading_options import RowOptions
from onnxslim_bert.cli.summary_files import SummaryFiles

GROUPS = {"reading": RowOptions, "placed": FolderOptions, "files": SummaryFiles}
TINY = "model.onnx"
# How each command is called to end soon, one line for each way through it that leaves something out.
CALLS = [
    "compile model.onnx",
    "device bundle model.onnx --data eval.tsv --target cpu -o new",
    "doctor --json",
    "export . -o new.onnx",
    "mobile model.onnx -o new",
    "passes",
    "recipes",
    "report small.json -o new.html",
    "report out",
    "schema",
    "split apart.onnx -o new",
    "verify small.onnx",
    "verify bare.onnx --json",
    "zoo diff out out --json",
    "zoo gc out --dry-run",
    "zoo retry out",
    "zoo run zoo.toml -o out",
    "zoo status out --json",
    f"bench {TINY} --rounds 1 --seq 8",
    f"bench {TINY} --rounds 1 --data eval.tsv --json",
    f"distill {TINY} --student layers=1 --dry-run",
    f"explain {TINY} --target nnapi --seq 8 --json",
    f"inspect {TINY} --json",
    f"quantize {TINY} --mode dynamic -o new.onnx",
    f"slim {TINY} -p canonicalize? -o new.onnx --json",
    f"validate {TINY} {TINY} --data eval.tsv",
    f"{TINY} --json",
    "zoo init . -o new.toml",
]
REFUSED = {
    "compile model.onnx": 5,
    "export . -o new.onnx": 2,
}  # what is missing here is seen when all options are read
ON_A_DEVICE = {"device import", "device run"}  # which is not here; tests/device holds them
VALUES = {"max_size": "1MB", "max_download": "1MB", "target_size": "1MB", "inputs": "ids=x", "options": "cpu.x=1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, what was made of it with evaluation rows and without, and a zoo run."""
    folder = tmp_path_factory.mktemp("made")
    workspace(folder)
    (folder / "zoo.toml").write_text(
        '[defaults]\ncalib = "calib.tsv"\ndata = "eval.tsv"\n[recipes.dynamic]\npasses = "quantize-dynamic"\n'
        f'[[models]]\npath = "{TINY}"\n[run]\ntime = false\nstudy = false\n'
    )
    with contextlib.chdir(folder):
        for call in (
            f"quantize {TINY} --mode dynamic --data eval.tsv -o small.onnx",
            f"quantize {TINY} --mode dynamic -o bare.onnx",
            f"slim {TINY} -p canonicalize?,fuse,decouple{{layers=1}} -o apart.onnx",
            "zoo run zoo.toml -o out --jobs 1",
        ):
            done = run(*call.split())
            assert done.code == 0, done
    return folder


@pytest.mark.parametrize("call", CALLS)
def test_what_a_command_does_not_read_is_refused(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    arguments = call.split()
    command = command_of(arguments)
    with reading(command, monkeypatch) as read:
        done = run(*arguments)
    assert done.code == REFUSED.get(call, 0), done
    for option in options_of(command):
        given = any(name in arguments for name in option.opts)
        if option.name not in read and not given:
            assert_refused(run(*arguments, *an_example(option)), option.opts[-1])


def test_every_command_is_called() -> None:
    called = {" ".join(names_of(call.split())) for call in CALLS}
    assert called | ON_A_DEVICE == {*all_commands(cli), "MODEL"}


def test_verify_refuses_what_is_said_of_rows_that_were_not_used(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model without evaluation rows all that would read them, and rows of a kind that was not used, of any."""
    monkeypatch.chdir(made)
    of_rows = (
        "--data eval.tsv",
        "--tokenizer tokenizer.json",
        "--task classification",
        "--output-name logits",
        "--ep cpu",
    )
    for model, options in (("bare.onnx", of_rows), ("small.onnx", ("--calib calib.tsv", "--corpus calib.tsv"))):
        for option in options:
            assert_refused(run("verify", model, *option.split()), f"{option.split()[0]} does nothing: {model} was made")


def test_a_command_that_reads_nothing_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that looks at an option only on one of its ways, the reading is told on that way alone."""

    @click.command()
    @click.option("--number")
    @click.option("--flag", is_flag=True)
    def sometimes(number: str | None, flag: bool) -> None:
        if flag:
            assert [number for _ in range(1)] == [None]

    for arguments, names in ((["--flag"], {"number", "flag"}), ([], {"flag"})):
        with reading(sometimes, monkeypatch) as read:
            sometimes.main(arguments, standalone_mode=False)
        assert read == names


def test_every_option_of_a_recipe_alone_changes_it(tmp_path: Path) -> None:
    model = workspace(tmp_path)
    call = ("distill", model, "--student", "layers=1", "--dry-run")
    plain = run(*call).out
    for more in (("--texts", 7), ("--minutes", 2), ("--tokens", 9), ("--int8",)):
        assert run(*call, *more).out != plain


def command_of(arguments: Sequence[str]) -> click.Command:
    """The command that the arguments call."""
    context = click.Context(cli)
    _, command, rest = cli.resolve_command(context, list(arguments))
    while isinstance(command, click.Group):
        _, command, rest = command.resolve_command(context, rest)
    assert command is not None
    return command


def names_of(arguments: Sequence[str]) -> list[str]:
    """The words of `arguments` that name the command."""
    context = click.Context(cli)
    name, command, rest = cli.resolve_command(context, list(arguments))
    names = [str(name)]
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
        names.append(str(name))
    return names


def all_commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[str]:
    """The names of all commands below `group`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from all_commands(command, (*before, name))
        else:
            yield " ".join((*before, name))


def options_of(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def an_example(option: click.Option) -> list[str]:
    """The option with a value that it takes."""
    if option.is_flag:
        return [option.opts[-1]]
    if isinstance(option.type, click.Choice):
        return [option.opts[-1], option.type.choices[-1]]
    number = isinstance(option.type, click.IntRange | click.FloatRange)
    return [option.opts[-1], VALUES.get(str(option.name), "1" if number else "x")]


@contextmanager
def reading(command: click.Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The parameters that the command's function reads meanwhile, by name; of those taken together, which fields."""
    assert command.callback is not None
    code = inspect.unwrap(command.callback).__code__
    groups = [name for name in GROUPS if name in code.co_varnames + code.co_cellvars]
    read: set[str] = set()
    before = sys.gettrace()
    with monkeypatch.context() as patch:
        for kind in [GROUPS[name] for name in groups]:
            patch.setattr(kind, "__getattribute__", telling(read, {field.name for field in fields(kind)}))
        sys.settrace(tracer(code, read))
        try:
            yield read
        finally:
            sys.settrace(before)
    if "gate" in read:  # budgets are held together
        read |= {*BUDGETS, "strict"}
    read -= {*groups, "gate"}


def telling(read: set[str], names: set[str]) -> Callable[[object, str], Any]:
    def get(self: object, name: str) -> Any:
        if name in names:
            read.add(name)
        return object.__getattribute__(self, name)

    return get


def tracer(code: CodeType, read: set[str]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that adds the parameters of `code` that a run of it loads to `read`."""
    names = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    loads = {each.offset: each.argval for each in dis.get_instructions(code) if each.opname.startswith("LOAD")}

    def step(frame: FrameType, event: str, _: Any) -> Any:
        loaded = loads.get(frame.f_lasti) if event == "opcode" else None
        read.update(names & {*(loaded if isinstance(loaded, tuple) else (loaded,))})
        return step

    def called(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    return called
