"""How far the answers of int8 layers can be off on CPUs that add products in 16 bits."""

from dataclasses import dataclass

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.saturation import find_saturation, multiplies_integers
from onnxslim_bert.rewriting.trials import Trials


@dataclass(frozen=True)
class Saturating:
    """How far int8 products can be off on CPUs that add them in pairs in 16 bits (AVX2 without VNNI).

    layers: number of layers in which the sum of some pair can leave 16 bits. worst: the node of the layer that is off
    most on calibration rows; loss: |saturated - exact| / |exact| of its product. "" and 0 without such a layer.
    """

    layers: int
    worst: str
    loss: float


def saturation_of(model: Model, trials: Trials) -> Saturating | None:
    """Measure how far int8 sums of `model` can be off; None where no layer multiplies integers."""
    if not multiplies_integers(model):
        return None
    found = [layer for layer in find_saturation(model, trials.unshared()) if layer.possible]
    worst = max(found, key=lambda layer: layer.loss, default=None)
    return Saturating(len(found), worst.node if worst else "", worst.loss if worst else 0.0)
