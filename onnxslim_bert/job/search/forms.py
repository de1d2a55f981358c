"""How the models of a search end: quantized for the CPU, or in the form and the default mode of another target."""

from onnxslim_bert.calibration.observers import Range
from onnxslim_bert.job.deployment import Deployment
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.recipes.int8 import int8
from onnxslim_bert.recipes.lowering import lowered
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.recipes.run import run_recipe
from onnxslim_bert.rewriting.contract import Context


def last_steps(where: Deployment, quantize: str) -> str:
    """The recipe text that ends a plan: on the CPU `quantize` and what goes with it, else what the target needs."""
    return int8(quantize) if not where.is_lowered else str(_lowering(where))


def finish_to_time(model: Model, where: Deployment, float_layers: tuple[int, ...] = ()) -> None:
    """Bring `model`, canonicalized and fused, into its last form, to be timed.

    On the CPU its ranges are made up, its answers wrong. float_layers: numbers of layers that stay float32 there.
    """
    if where.is_lowered:
        run_recipe(model, _lowering(where))
        return
    FirstToken().apply(model, Context())
    quantize = QuantizeStatic(correct_bias=False, float_layers=float_layers)
    quantize.apply(model, Context({want: Range(-4.0, 4.0) for want in quantize.wants(model)}))
    SkipMask().apply(model, Context())


def _lowering(where: Deployment) -> Recipe:
    return lowered(Recipe(()), where.target, next(iter(where.seq), None))
