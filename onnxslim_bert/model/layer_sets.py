"""Sets of encoder layers: those that an option names, and those that share matrices."""

from collections.abc import Sequence

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model


def check_together(option: str, named: Sequence[int], model: Model) -> None:
    """Raise PassError when some of the layers that share a matrix are named and others are not: it is stored once."""
    for group in layer_groups(model) if named else []:
        if 0 < len({*group} & {*named}) < len(group):
            together = ", ".join(map(str, group))
            raise PassError(f"{option}: layers {together} share their matrices; name all of them or none")


def layer_groups(model: Model) -> list[tuple[int, ...]]:
    """The layers of the encoder, those that share a matrix together."""
    layers = model.encoder.layers
    weights = [{m.weight for linear in layer.linears.values() for m in linear.matrices} for layer in layers]
    return [tuple(layers[i].index for i in group) for group in sharing_groups(weights)]


def check_layers(option: str, named: Sequence[int], count: int) -> None:
    """Raise PassError when an encoder of `count` layers lacks one of those named."""
    if missing := [str(layer) for layer in named if not 0 <= layer < count]:
        raise PassError(f"{option}: no layer {', '.join(missing)}: the encoder has 0 to {count - 1}")


def sharing_groups(names: Sequence[set[str]]) -> list[list[int]]:
    """Indices of the sets that have names in common, directly or through others, together; each group ascending."""
    groups: list[list[int]] = []
    for index, own in enumerate(names):
        joined = [group for group in groups if any(own & names[i] for i in group)]
        groups = [group for group in groups if group not in joined]
        groups.append(sorted([index, *(i for group in joined for i in group)]))
    return sorted(groups)
