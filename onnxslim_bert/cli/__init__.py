"""The command line. Each command lives in a module of its own, imported when it is called, so that help is quick."""

import difflib
import importlib
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from onnxslim_bert import __version__
from onnxslim_bert.cli.cut_short import said_when_cut
from onnxslim_bert.cli.screen import echo, echo_text
from onnxslim_bert.cli.signals import TERMINATED, Terminated, ended_by_signals
from onnxslim_bert.cli.stuck import ended_when_stuck
from onnxslim_bert.errors import GateError, SlimError
from onnxslim_bert.graph.naming import KEPT, NAMED
from onnxslim_bert.machine import BLAS_THREADS
from onnxslim_bert.memory import check_memory, is_shortage, shortage

COMMANDS = {
    "inspect": "Print the encoder found in a model, and what a pass could do with it.",
    "quantize": "Make a model small and fast, and prove what it is worth.",
    "slim": "Run any sequence of passes.",
    "distill": "Train a small student to answer as a model does.",
    "passes": "List the passes with their options.",
    "recipes": "List the recipes that ship.",
    "validate": "Compare a candidate with its base and hold it to budgets.",
    "bench": "Time models in interleaved rounds.",
    "doctor": "Say what is installed, which providers work here, and what this CPU is good at.",
    "explain": "Say which nodes run on a target, and why the others do not.",
    "compile": "Compile a model for a chip ahead of time.",
    "mobile": "Write a model in ORT format for a phone.",
    "split": "Write a model of text pairs as two files, so that passages are encoded once.",
    "device": "Run a model on a phone or a board, and compare its answers here.",
    "export": "Write ONNX from a Hugging Face model.",
    "zoo": "Optimize many models in one resumable run, and compare two runs.",
    "report": "Write what a run found as one page, and print it.",
    "verify": "Check a written model against what it says of itself.",
    "schema": "Print the schemas of the JSON documents.",
}
INTERRUPTED = 130
LONGEST = 1000  # letters of an error's line


class Commands(click.Group):
    """Commands by name, each imported only when it runs.

    table: what each is for. prefix: of the names of their modules; the function has the command's name.
    """

    def __init__(self, *args: Any, table: Mapping[str, str], prefix: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table, self.prefix = table, prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module = importlib.import_module(f"onnxslim_bert.cli.{self.prefix}{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.table and not self.prefix and is_model(args[0]):
            from onnxslim_bert.cli.outlook import outlook

            return str(outlook.name), outlook, args
        near = difflib.get_close_matches(args[0], self.table, 1)
        if args[0] not in self.table and near:
            ctx.fail(f"no command {args[0]!r}, did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error  # click itself would print an empty line first

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))


def is_model(argument: str) -> bool:
    """Whether an argument in the place of a command names a model: a path that is there, or one that would be an ONNX
    file.
    """
    return argument.endswith(".onnx") or (not argument.startswith("-") and Path(argument).exists())


@click.group(
    cls=Commands,
    table=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 2 usage, model or data; 3 accuracy; 4 latency; 5 provider; 6 size; 130 interrupted.",
)
@click.version_option(__version__, prog_name="onnxslim-bert")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Make BERT-family ONNX models small and fast without retraining, and prove it.

    \b
    onnxslim model.onnx
    onnxslim inspect model.onnx
    onnxslim quantize model.onnx --calib sst2
    onnxslim validate model.onnx model.int8.onnx --data sst2 --max-drop 1
    """
    if ctx.invoked_subcommand is None:
        echo_text(ctx.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; what a user can mend is one line on stderr, behind what a
    search has found.
    """
    given = sys.argv[1:] if arguments is None else arguments
    NAMED.clear()  # of an earlier call in this process
    KEPT.clear()
    for variable in BLAS_THREADS:
        os.environ.setdefault(variable, "1")
    try:
        with ended_by_signals(), said_when_cut(), ended_when_stuck(), warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # of libraries, to whoever writes programs with them
            warn_of_clash()
            if not {"--help", "-h", "--version"} & set(given):
                check_memory()
            cli.main(arguments, prog_name="onnxslim", standalone_mode=False)
    except SlimError as error:
        for line in error.found if isinstance(error, GateError) else ():
            echo(line, err=True)
        fail(*([shortage(given)] if is_shortage(error) else error.lines), code=error.exit_code)
    except click.ClickException as error:
        usage = f" (see {error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        fail(error.format_message() + usage)
    except (KeyboardInterrupt, click.Abort):
        fail(f"interrupted; {_left()}", code=INTERRUPTED)
    except Terminated:
        sys.exit(TERMINATED)
    except (MemoryError, ImportError) as error:
        if not is_shortage(error):
            raise
        fail(shortage(given))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}")


def _left() -> str:
    """What an interrupted command leaves: what it had written, and where the same command goes on."""
    kept = [folder for folder in dict.fromkeys(KEPT) if os.path.lexists(folder)]
    names = [name for name in dict.fromkeys(NAMED) if os.path.lexists(name) and not {name, *name.parents} & {*kept}]
    written = f"written before: {', '.join(map(str, names))}" if names else "nothing was written"
    return written + "".join(f"; the same command goes on from what {folder} holds" for folder in kept)


def fail(*lines: str, code: int = SlimError.exit_code) -> None:
    """Print what is wrong and exit."""
    for line in lines:
        text = " ".join(line.split())
        if len(text) > LONGEST:  # it quotes something of that length; what was needed stands at the end
            text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
        echo(f"onnxslim: {text}", err=True)
    sys.exit(code)


def warn_of_clash() -> None:
    """Say so when the other package named OnnxSlim, whose script has the same name, is installed too."""
    from importlib import metadata

    try:
        other = metadata.version("onnxslim")
    except metadata.PackageNotFoundError:
        return
    if os.environ.get("ONNXSLIM_BERT_QUIET") is None:
        echo(
            f"onnxslim: the package OnnxSlim {other} installs a script of the same name, and whichever was installed "
            "last owns it; `onnxslim-bert` and `python -m onnxslim_bert` are always this program "
            "(ONNXSLIM_BERT_QUIET=1 silences this)",
            err=True,
        )
