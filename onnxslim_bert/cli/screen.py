"""Printing, for all commands. Texts may come from files of other people, so no markup or escape code in them acts."""

import json
from typing import TYPE_CHECKING, Any

import click

from onnxslim_bert.errors import as_line, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PADDING = (0, 2, 0, 0)
WIDE = 200  # columns of tables in a file or a pipe


def echo(text: object, *, err: bool = False) -> None:
    """Print one line on stdout, or on stderr: new lines in names of others are written out, like "\\n"."""
    click.echo(as_line(str(text)), err=err)


def echo_text(text: str) -> None:
    """Print a text of several lines, in which no name of others has more than one, on stdout."""
    click.echo(printable(text))


def echo_json(document: object) -> None:
    """Print a document that `--json` asks for, on stdout. Raises ValueError for NaN and infinity, which are no JSON."""
    echo_text(json.dumps(document, indent=2, allow_nan=False))


def console(*, stderr: bool = False) -> "Console":
    """The console that tables are printed on: as wide as the terminal; WIDE in files and pipes."""
    from rich.console import Console
    from rich.text import Text

    class Screen(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(as_line(text), **{**options, "markup": False, "emoji": False})

    screen = Screen(stderr=stderr, highlight=False)
    if not screen.file.isatty():
        screen.width = WIDE
    return screen


def plain_table(*headers: str) -> "Table":
    """A table without lines."""
    from rich.table import Table

    return Table(*headers, box=None, padding=PADDING)
