"""Which encoder layers stay float32 while the others are quantized."""

from onnxslim_bert.errors import PassError
from onnxslim_bert.layer_numbers import check_layers, read_layers
from onnxslim_bert.model import Model
from onnxslim_bert.sharing_groups import sharing_groups


def read_float_layers(model: Model, text: str) -> list[int]:
    """The layers of `model` that `text` names, as 0/5. Raises PassError.

    Layers that share a matrix stay float32 together or not at all: it is stored once.
    """
    option = f"quantize-static: float-layers={text}"
    named = read_layers(option, text, like="0/5")
    check_layers(option, named, len(model.encoder.layers))
    for group in layer_groups(model) if named else []:
        if 0 < len({*group} & {*named}) < len(group):
            together = ", ".join(map(str, group))
            raise PassError(f"{option}: layers {together} share their matrices; name all of them or none")
    return named


def layer_groups(model: Model) -> list[tuple[int, ...]]:
    """The layers of the encoder, those that share a matrix together."""
    layers = model.encoder.layers
    weights = [{m.weight for linear in layer.linears.values() for m in linear.matrices} for layer in layers]
    return [tuple(layers[i].index for i in group) for group in sharing_groups(weights)]
