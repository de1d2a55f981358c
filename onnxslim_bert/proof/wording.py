"""Numbers as people write them."""


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


def plural(count: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def tokens_a_row(length: int | None) -> str:
    """How long timed rows were, in words; None: as they were given."""
    return "rows as given, on average" if length is None else f"{length} tokens"
