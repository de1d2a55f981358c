"""Which encoder layers stay float32 while the others are quantized."""

from onnxslim_bert.errors import PassError
from onnxslim_bert.model import Model


def read_float_layers(model: Model, text: str) -> list[int]:
    """The layers of `model` that `text` names, as 0/5. Raises PassError.

    Layers that share a matrix stay float32 together or not at all: it is stored once.
    """
    option = f"quantize-static: float-layers={text}"
    try:
        named = [int(part) for part in text.split("/")] if text else []
    except ValueError:
        raise PassError(f"{option} needed whole numbers, like 0/5") from None
    count = len(model.encoder.layers)
    if missing := [str(layer) for layer in named if not 0 <= layer < count]:
        raise PassError(f"{option}: no layer {', '.join(missing)}: the encoder has 0 to {count - 1}")
    if len({*named}) < len(named):
        raise PassError(f"{option} names a layer twice")
    for group in layer_groups(model) if named else []:
        if 0 < len({*group} & {*named}) < len(group):
            together = ", ".join(map(str, group))
            raise PassError(f"{option}: layers {together} share their matrices; name all of them or none")
    return named


def layer_groups(model: Model) -> list[tuple[int, ...]]:
    """The layers of the encoder, those that share a matrix together."""
    groups: list[tuple[tuple[int, ...], set[str]]] = []
    for layer in model.encoder.layers:
        weights = {matrix.weight for linear in layer.linears.values() for matrix in linear.matrices}
        apart = [group for group in groups if not group[1] & weights]
        sharing = [group for group in groups if group[1] & weights]
        indices = [index for group in sharing for index in group[0]]
        groups = [*apart, ((*sorted(indices), layer.index), weights.union(*(names for _, names in sharing)))]
    return sorted(indices for indices, _ in groups)
