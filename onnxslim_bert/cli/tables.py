"""Tables on a terminal, and as wide as they are where nobody looks at the width."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PADDING = (0, 2, 0, 0)
WIDE = 200  # columns of what goes to a file or a pipe


def console() -> "Console":
    """Where tables are printed."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


def plain_table(*headers: str) -> "Table":
    """A table without lines."""
    from rich.table import Table

    return Table(*headers, box=None, padding=PADDING)
