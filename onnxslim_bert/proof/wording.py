"""Numbers as people write them."""

from collections.abc import Iterable


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


def numbered_layers(numbers: Iterable[int]) -> str:
    """ "layer 3", "layers 0 to 2, 5"; the numbers ascend."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
    return f"layer{'' if sum(map(len, runs)) == 1 else 's'} {text}"


def tokens_a_row(length: int | None) -> str:
    """How long timed rows were, in words; None: as they were given."""
    return "rows as given" if length is None else f"{length} tokens"
