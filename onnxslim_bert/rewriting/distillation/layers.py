"""Which tensors of a student are to be like which of its teacher."""

from math import gcd

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.encoder import Layer
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans

Pairs = list[tuple[str, str]]
"""Names of tensors: the student's, the teacher's."""


def layer_pairs(student: Model, teacher: Model) -> Pairs:
    """What each layer of the student leaves, and what the teacher has where the student's next layer goes on.

    A student of the teacher's layers 0, 1, 2 and 5 is to have behind its third layer what the teacher has behind its
    layer 4, and behind its last what the teacher has behind its last. Empty where a layer's end is not found.

    Sun et al. 2019 (PKD), https://arxiv.org/abs/1908.09355
    """
    try:
        ours, theirs = find_spans(student), find_spans(teacher)
    except PassError:
        return []
    kept = kept_layers(student.encoder.layers, teacher.encoder.layers)
    ends = [*(number - 1 for number in kept[1:]), len(theirs) - 1]
    return [(span.exit, theirs[end].exit) for span, end in zip(ours, ends, strict=True)]


def kept_layers(ours: tuple[Layer, ...], theirs: tuple[Layer, ...]) -> list[int]:
    """Of which of the teacher's layers each of the student's was made: by the names of matrices, or of nodes.

    Spread evenly where neither says.
    """
    for part in ("weight", "node"):
        names = [getattr(layer.query, part) for layer in theirs]
        found = [
            names.index(name) if names.count(name) == 1 else -1
            for name in (getattr(layer.query, part) for layer in ours)
        ]
        if -1 not in found and found == sorted(set(found)):
            return found
    return [i * len(theirs) // len(ours) for i in range(len(ours))]


def relation_pairs(student: Model, teacher: Model) -> Pairs:
    """The queries, keys and values of the last layers (MiniLMv2)."""
    ours, theirs = student.encoder.layers[-1], teacher.encoder.layers[-1]
    return [
        (mine.result, other.result)
        for mine, other in ((ours.query, theirs.query), (ours.key, theirs.key), (ours.value, theirs.value))
    ]


def relation_heads(widths: tuple[int, int], heads: int) -> int:
    """Into how many parts both widths can be cut, at most `heads`: (192, 384) and 12 -> 12."""
    common = gcd(*widths)
    return max(parts for parts in range(1, heads + 1) if common % parts == 0)
