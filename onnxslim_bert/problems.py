"""What stands in the way of an encoder's use, or of a pass."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from onnxslim_bert.arrays import Array
from onnxslim_bert.encoder import Layer
from onnxslim_bert.file_facts import FileFacts
from onnxslim_bert.model import Model
from onnxslim_bert.sharing import Shared

WORTH_SAYING = 0.01  # share of the weights that is stored twice


def find_problems(
    file: FileFacts, model: Model, shared: Sequence[Shared], stored: Mapping[str, Array]
) -> Iterator[str]:
    """One sentence for each; `model` is canonicalized, and `stored` are the arrays in its file."""
    encoder = model.encoder
    reasons: dict[str, list[Layer]] = {}
    for layer in encoder.layers:
        reasons.setdefault(layer.reason, []).append(layer)
    for reason, layers in reasons.items():
        if reason:
            yield f"attention of {numbers(layer.index for layer in layers)} is not proven: {reason}"
    if all(layer.form is not None for layer in encoder.layers) and encoder.mask is None:
        yield "no input says which tokens are real: padding changes the answers"
    lacking = [layer.index for layer in encoder.layers if layer.up is None]
    if lacking:
        yield f"no feed-forward found in {numbers(lacking)}"
    if encoder.embeddings.word is None:
        yield "no table of words found"
    fixed = {port.axes: port.name for port in file.inputs if len(port.axes) == 2 and int in map(type, port.axes)}
    for axes, name in fixed.items():
        yield f"input {name!r} has the fixed shape {list(axes)}: a shorter text costs as much as the longest"
    for group in shared:
        if group.copies > 1:
            held = " and ".join(dict.fromkeys(use.role for use in group.uses))
            yield f"the weights of {held} are stored {group.copies} times"
    before, after = (sum(values.nbytes for values in kept) for kept in (stored.values(), _arrays(model)))
    if not any(group.copies > 1 for group in shared) and before - after > WORTH_SAYING * before:
        yield f"{(before - after) / 1e6:.1f} MB of constants go when equal ones are stored once"


def numbers(layers: Iterable[int]) -> str:
    """"layer 3" or "layers 0 to 2, 5"."""
    runs: list[list[int]] = []
    for number in layers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
    return f"layer{'s' if sum(map(len, runs)) > 1 else ''} {text}"


def _arrays(model: Model) -> list[Array]:
    return [constant.values for constant in model.constants().values()]
