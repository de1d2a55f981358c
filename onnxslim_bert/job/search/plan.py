"""One point of the search, as the recipe that makes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from onnxslim_bert.recipes.int8 import FIRST_TOKEN, FUSED, int8
from onnxslim_bert.recipes.recipe import Recipe


@dataclass(frozen=True)
class SearchPlan:
    """What is done to the encoder before it is quantized.

    heads, neurons: how many each site keeps (`pruning.sites`). layers, embedding, tokens: steps that drop layers, make
    the word table smaller, and drop tokens; empty when they are not taken. method: of the int8 ranges. float_layers:
    those that stay float32, numbered as they are when others are gone.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    layers: str = ""
    embedding: str = ""
    tokens: str = ""
    method: str = "minmax"
    float_layers: tuple[int, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The passes in the order in which they run."""
        widths = f"prune{{heads={_written(self.heads)},neurons={_written(self.neurons)}}}?"
        left = f",float-layers={_written(self.float_layers)}" if self.float_layers else ""
        quantized = int8(f"quantize-static{{method={self.method}{left}}}")
        steps = [FUSED, self.embedding, self.layers, widths, FIRST_TOKEN, self.tokens, quantized]
        return Recipe.parse(",".join(filter(None, steps)))


def _written(widths: Sequence[int]) -> str:
    return "/".join(map(str, widths))
