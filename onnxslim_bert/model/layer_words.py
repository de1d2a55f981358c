"""Sets of encoder layers in words, for notes and reports."""

import re
from collections.abc import Iterable, Sequence

from onnxslim_bert.model.encoder import Layer


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


def unproven(layers: Sequence[Layer]) -> list[tuple[str, str]]:
    """The layers whose attention is not proven, in words, and why: once for all layers with the same reason.

    Reasons that differ in nothing but quoted names are the same; the first layer's is given. Example: [("layers 0 to
    2", "each token sees only earlier ones (a causal mask)")].
    """
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.form is None:
            groups.setdefault(re.sub(r"'[^']*'", "''", layer.reason), []).append(layer)
    found = []
    for group in groups.values():
        where = numbered_layers(layer.index for layer in group)
        differ = len({layer.reason for layer in group}) > 1
        found.append((where, group[0].reason + f" (as layer {group[0].index} has it)" * differ))
    return found
