"""Which passes mend what a provider does not take, written as recipes."""

from collections.abc import Mapping

FIX_SHAPES, MASK, STANDARD = "fix-shapes", "mask-bias", "canonicalize,fuse{style=standard}"
ONLY_FOR_MASKS = (
    *("And", "Equal", "Flatten", "GatherND", "GreaterOrEqual", "IsInf", "IsNaN", "LessOrEqual", "Not", "Where"),
    *("Greater", "Less", "Or"),
)
ONLY_FOR_SHAPES = ("ConstantOfShape", "Expand", "Range", "Shape", "Size", "Tile")
CONTRIB = (
    *("Attention", "MultiHeadAttention", "PackedAttention", "EmbedLayerNormalization", "SkipLayerNormalization"),
    "RotaryEmbedding",
    *("BiasGelu", "FastGelu", "FusedMatMul", "BiasSkipLayerNormalization"),
)

# In the graph of an encoder; what an operator is for elsewhere does not matter here.
BY_OPERATOR: Mapping[str, str] = {
    **dict.fromkeys(ONLY_FOR_MASKS, MASK),
    **dict.fromkeys(ONLY_FOR_SHAPES, FIX_SHAPES),
    **dict.fromkeys(CONTRIB, STANDARD),
    "Sum": "split-sums",
    **dict.fromkeys(("Neg", "Reciprocal"), "plain-operators"),
    "Identity": "canonicalize",
}
