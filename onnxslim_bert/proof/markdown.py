"""Tables in GitHub-flavoured Markdown: https://github.github.com/gfm/#tables-extension-"""

import re
from collections.abc import Iterable, Sequence

from onnxslim_bert.errors import disarmed

MARKS = re.compile(r"([\\`*_\[\]<>|~&$#])")


def table(headers: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, one line a row, that ends in a newline. Cells are shown as they are: what would be markup is escaped.

    Raises ValueError for a row that has not as many cells as there are headers.
    """
    body = [[escaped(cell) for cell in line] for line in (headers, *rows)]
    if any(len(line) != len(headers) for line in body):
        raise ValueError(f"needed rows of {len(headers)} cells, as the header has")
    lines = [body[0], ["---"] * len(headers), *body[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escaped(text: object) -> str:
    """`text` on one line, without any character that Markdown would take for markup."""
    return MARKS.sub(r"\\\1", disarmed(" ".join(str(text).split())))
