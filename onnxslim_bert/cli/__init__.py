"""The command line. Each command lives in a module of its own, imported when it is called, so that help is quick."""

import importlib
import os
import sys

import click

from onnxslim_bert import __version__
from onnxslim_bert.errors import SlimError

COMMANDS = {
    "inspect": "Print the encoder found in a model, and what a pass could do with it.",
    "quantize": "Make a model small and fast, and prove what it is worth.",
    "slim": "Run any sequence of passes.",
    "passes": "List the passes with their options.",
    "validate": "Compare a candidate with its base and hold it to budgets.",
    "bench": "Time models in interleaved rounds.",
    "export": "Write ONNX from a Hugging Face model.",
}
INTERRUPTED = 130
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Commands(click.Group):
    """Commands by name, each imported only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"onnxslim_bert.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=Commands,
    epilog="Exit codes: 0 done; 2 bad usage, model or data; 3 accuracy; 4 latency; 5 provider; 6 size; 130 interrupt.",
)
@click.version_option(__version__, prog_name="onnxslim-bert")
def cli() -> None:
    """Make BERT-family ONNX models small and fast without retraining, and prove it.

    \b
    onnxslim inspect model.onnx
    onnxslim quantize model.onnx --calib sst2
    onnxslim validate model.onnx model.int8.onnx --data sst2 --max-drop 1
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; what a user can mend is one line on stderr."""
    # numpy's threads spin while they wait: a third more CPU time for no less wall time
    for variable in BLAS_THREADS:
        os.environ.setdefault(variable, "1")
    warn_of_clash()
    try:
        cli.main(arguments, prog_name="onnxslim", standalone_mode=False)
    except SlimError as error:
        fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; nothing was written", INTERRUPTED)
    except OSError as error:
        fail(f"{error.filename or 'the system'}: {error.strerror}", SlimError.exit_code)


def fail(message: str, code: int) -> None:
    """Print one line and exit."""
    click.echo(f"onnxslim: {' '.join(message.split())}", err=True)
    sys.exit(code)


def warn_of_clash() -> None:
    """Say so when the other package named OnnxSlim, whose script has the same name, is installed too."""
    from importlib import metadata

    try:
        other = metadata.version("onnxslim")
    except metadata.PackageNotFoundError:
        return
    if os.environ.get("ONNXSLIM_BERT_QUIET") is None:
        click.echo(
            f"onnxslim: the package OnnxSlim {other} installs a script of the same name, and whichever was installed "
            "last owns it; `onnxslim-bert` and `python -m onnxslim_bert` are always this program "
            "(ONNXSLIM_BERT_QUIET=1 silences this)",
            err=True,
        )
