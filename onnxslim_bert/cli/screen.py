"""What commands print. Names come from files of other people: none is read as markup or obeyed by a terminal."""

from typing import TYPE_CHECKING, Any

import click

from onnxslim_bert.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PADDING = (0, 2, 0, 0)
WIDE = 200  # columns of what goes to a file or a pipe


def echo(text: object, *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr."""
    click.echo(printable(str(text)), err=err)


def console(*, least: int = 0, stderr: bool = False) -> "Console":
    """Where tables are printed: as wide as the terminal, no less than `least`, and WIDE where there is none."""
    from rich.console import Console
    from rich.text import Text

    class Screen(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **{**options, "markup": False, "emoji": False})

    screen = Screen(stderr=stderr, highlight=False)
    screen.width = max(screen.width, least) if screen.file.isatty() else WIDE
    return screen


def plain_table(*headers: str) -> "Table":
    """A table without lines."""
    from rich.table import Table

    return Table(*headers, box=None, padding=PADDING)
