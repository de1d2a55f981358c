"""What stands in the way of an encoder's use, or of a pass."""

from collections.abc import Iterator, Mapping, Sequence

from onnxslim_bert.arrays import Array
from onnxslim_bert.inspection.file_facts import FileFacts
from onnxslim_bert.inspection.sharing import Shared
from onnxslim_bert.model.layer_words import numbered_layers, unproven
from onnxslim_bert.model.narrow_weights import Narrow
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.wording import plural, si

WORTH_SAYING = 0.01  # share of the weights stored more than once, above which that is a problem


def find_problems(
    file: FileFacts, model: Model, shared: Sequence[Shared], stored: Mapping[str, Array], narrow: Sequence[Narrow] = ()
) -> Iterator[str]:
    """The problems, one sentence each.

    file: facts of the file. model: canonicalized. shared: weights with several roles. stored: the arrays in the file.
    narrow: weights that it stores in fewer bits than it computes with.
    """
    encoder = model.encoder
    not_proven = unproven(encoder.layers)
    for where, reason in not_proven:
        yield f"attention of {where} is not proven: {reason}"
    if not not_proven and encoder.mask is None:
        yield "no input says which tokens are real: padding changes the answers"
    lacking = [layer.index for layer in encoder.layers if layer.up is None]
    if lacking:
        yield f"no feed-forward found in {numbered_layers(lacking)}"
    if encoder.embeddings.word is None:
        yield "no table of words found"
    fixed = {port.axes: port.name for port in file.inputs if len(port.axes) == 2 and int in map(type, port.axes)}
    for axes, name in fixed.items():
        yield f"input {name!r} has the fixed shape {list(axes)}: a shorter text costs as much as the longest"
    if narrow:
        kept, wide = sum(weight.nbytes for weight in narrow), sum(weight.wide for weight in narrow)
        types = " and ".join(sorted({weight.dtype for weight in narrow}))
        yield (
            f"{plural(len(narrow), 'weight')} stored as {types} and widened on loading: every pass unfolds them, "
            f"{si(kept, 'B')} to {si(wide, 'B')}; start from the file before them"
        )
    repeated = [group for group in shared if group.copies > 1]
    if repeated:
        excess = sum(group.nbytes * (group.copies - 1) for group in repeated)
        roles = ", ".join(dict.fromkeys(use.role for group in repeated for use in group.uses))
        yield f"equal weights are stored more than once, {si(excess, 'B')} too much: {roles}"
    before, after = (sum(values.nbytes for values in kept) for kept in (stored.values(), _arrays(model)))
    if not repeated and before - after > WORTH_SAYING * before:
        yield f"{si(before - after, 'B')} of constants are stored more than once"


def _arrays(model: Model) -> list[Array]:
    return [constant.values for constant in model.constants().values()]
