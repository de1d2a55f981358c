"""What int8 layers lose on CPUs that add their products in 16 bits."""

from dataclasses import dataclass

from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.int8.saturation import find_saturation, multiplies_integers
from onnxslim_bert.rewriting.trials import Trials


@dataclass(frozen=True)
class Saturating:
    """What int8 products lose on CPUs that add them in 16 bits (AVX2 without VNNI).

    layers: in which some sums of pairs can leave 16 bits. loss: the largest, |saturated - exact| / |exact| of the
    product of the layer at node `worst`, on calibration rows.
    """

    layers: int
    worst: str
    loss: float


def saturation_of(model: Model, trials: Trials) -> Saturating | None:
    """The layer of `model` that loses most; None where no layer multiplies integers."""
    if not multiplies_integers(model):
        return None
    found = [layer for layer in find_saturation(model, trials.unshared()) if layer.possible]
    worst = max(found, key=lambda layer: layer.loss, default=None)
    return Saturating(len(found), worst.node if worst else "", worst.loss if worst else 0.0)
