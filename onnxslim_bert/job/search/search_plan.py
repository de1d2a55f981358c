"""A plan of the search: what one model keeps and which steps make it, and the recipe of that."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim_bert.job.deployment import ON_CPU, Deployment
from onnxslim_bert.job.search.forms import last_steps
from onnxslim_bert.passes.quantize_embedding import QuantizeEmbedding
from onnxslim_bert.recipes.int8 import FIRST_TOKEN, FUSED
from onnxslim_bert.recipes.recipe import Recipe


@dataclass(frozen=True)
class SearchPlan:
    """How one model is made from the source: what is removed, and how the rest is quantized.

    heads, neurons: how many each site keeps, in the order of the layers that are left (`pruning.sites`). layers,
    embedding, tokens: recipe steps that drop layers, make the word table smaller, and drop tokens; "" for none. Bits of
    the word table are the business of the quantization: other steps work on a table in float.
    method: of the int8 ranges. float_layers: layers that stay float32, by their numbers after `layers` was done.
    stream, distill: steps that make the stream narrower, and train what is left; "" for none. weights: the step that
    stores int8 matrices in fewer bits; "" for none. reduce_range: see `Quantization`. where: on what it runs;
    method, float_layers and reduce_range are for the CPU.

    Example: heads (4, 3), neurons (96, 64), method "mse" has `prune{heads=4/3,neurons=96/64}?` and
    `quantize-static{method=mse}` in its recipe.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    layers: str = ""
    embedding: str = ""
    tokens: str = ""
    method: str = "minmax"
    float_layers: tuple[int, ...] = ()
    distill: str = ""
    weights: str = ""
    stream: str = ""
    reduce_range: bool = False
    where: Deployment = ON_CPU

    @property
    def recipe(self) -> Recipe:
        """The passes in the order in which they run."""
        widths = f"prune{{heads={_written(self.heads)},neurons={_written(self.neurons)}}}?"
        left = f",float-layers={_written(self.float_layers)}" if self.float_layers else ""
        narrow = ",reduce-range=true" * self.reduce_range
        quantized = last_steps(self.where, f"quantize-static{{method={self.method}{left}{narrow}}}")
        table = Recipe.parse(self.embedding).steps if self.embedding else ()
        smaller = [str(step) for step in table if step.action.name != QuantizeEmbedding.name]
        packed = [str(step) for step in table if step.action.name == QuantizeEmbedding.name]
        before = [FUSED, *smaller, self.layers, widths, self.stream, FIRST_TOKEN, self.tokens, self.distill]
        return Recipe.parse(",".join(filter(None, [*before, *packed, quantized, self.weights])))


def _written(widths: Sequence[int]) -> str:
    return "/".join(map(str, widths))
