"""Numbers and tables as people write them."""

from collections.abc import Iterator, Mapping, Sequence


def si(value: float, unit: str = "") -> str:
    """A number with a decimal prefix: 22.7 M, 3.55 kB, 437.7 MB."""
    if value < 1000:
        return f"{value:.0f} {unit}".rstrip()
    prefix = ""
    for larger in ("k", "M", "G", "T"):
        if value < 999.95:
            break
        value, prefix = value / 1000, larger
    return f"{value:.{2 if value < 9.995 else 1}f} {prefix}{unit}"


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, noun: str, several: str = "") -> str:
    """1 layer, 2 layers; `several` where more than one take no s behind the noun, as matrices."""
    return f"{count} {noun if count == 1 else several or f'{noun}s'}"


def counted(counts: Mapping[str, int]) -> str:
    """How many there are of each noun that there is: "3 activations, 1 attention" of 3, 1 and 0; else "nothing"."""
    return ", ".join(plural(count, noun) for noun, count in counts.items() if count) or "nothing"


def tokens_a_row(length: int | None) -> str:
    """How long timed rows were, in words; None: as they were given."""
    return "rows as given, on average" if length is None else f"{length} tokens"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each of `rows`, cells of a column one below the other and two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
