"""What brings an encoder, from whatever exporter, into the form that a target takes whole: recipes.

The default mode of a target is the best one measured (docs/benchmarks.md, Targets).
"""

from dataclasses import dataclass
from typing import Literal

from onnxslim_bert.errors import PassError
from onnxslim_bert.recipes.int8 import STANDARD, int8
from onnxslim_bert.recipes.recipe import Recipe

Mode = Literal["static", "dynamic", "weight-only", "fp16", "fp32"]

PLAIN_MASK = ["mask-bias?", "split-sums?"]
INTEGER_GRAPH = ["lookup-positions?"]  # of positions, for models that count them from the ids
NNAPI = ["dense-2d", "gelu-tanh?", "unfuse-norms?", "lower-opset?", "int32-inputs?"]
FIXED = "fix-shapes{seq=SEQ}?"


@dataclass(frozen=True)
class Lowering:
    """How a model is written for one target.

    form: passes that bring the float graph into its form, FIXED where it takes fixed shapes only.
    modes: what may follow, the default first; each with its passes.
    shares_data: several files may keep their weights in one that lies beside them.
    """

    form: tuple[str, ...]
    modes: dict[Mode, tuple[str, ...]]
    shares_data: bool = True

    @property
    def is_fixed(self) -> bool:
        """Whether it takes fixed shapes only."""
        return FIXED in self.form

    @property
    def default(self) -> Mode:
        """The mode when none is asked for."""
        return next(iter(self.modes))


LOWERINGS: dict[str, Lowering] = {
    "openvino": Lowering(
        (STANDARD,),
        {
            "weight-only": ("quantize-weights",),
            "static": (int8("quantize-static{format=qdq}", contrib=False),),
            "fp32": (),
        },
    ),
    "qnn": Lowering((STANDARD, FIXED, *PLAIN_MASK), {"static": ("quantize-qdq",), "fp32": ()}),
    "coreml": Lowering(
        (STANDARD, FIXED, *PLAIN_MASK, *INTEGER_GRAPH), {"fp16": ("float16",), "fp32": ()}, shares_data=False
    ),
    "nnapi": Lowering((STANDARD, FIXED, *PLAIN_MASK, *INTEGER_GRAPH, *NNAPI), {"fp32": ()}, shares_data=False),
}
CPU_MODES: tuple[Mode, ...] = ("static", "dynamic", "weight-only", "fp16")


def mode_for(target: str, mode: Mode | None) -> Mode:
    """The mode asked for, or the target's default. Raises PassError for one that the target does not have."""
    modes = CPU_MODES if target == "cpu" else tuple(LOWERINGS[target].modes)
    if mode is not None and mode not in modes:
        raise PassError(f"--mode {mode} is not for {target}; it takes {' or '.join(modes)}")
    return mode or modes[0]


def lowering(target: str, mode: Mode | None = None, seq: int | None = None) -> tuple[Recipe, Recipe]:
    """The passes for a target other than the CPU: those that bring the float graph into its form, and those after.

    seq: tokens in a row, for targets that take fixed shapes only. Raises PassError when it is missing, or would do
    nothing.
    """
    found = LOWERINGS[target]
    if found.is_fixed and seq is None:
        raise PassError(f"{target} takes fixed shapes only: give the tokens in a row, like --seq 128")
    form = ",".join(found.form).replace("SEQ", str(seq))
    then = found.modes[mode_for(target, mode)]
    return Recipe.parse(form), Recipe.parse(",".join(then)) if then else Recipe(())


def lowered(recipe: Recipe, target: str, seq: int | None) -> Recipe:
    """`recipe`, and then the passes for `target` in its default mode; for the CPU, `recipe` alone.

    Raises PassError for a length that is missing or does nothing.
    """
    if seq is not None and (target == "cpu" or not LOWERINGS[target].is_fixed):
        raise PassError(f"--seq does nothing for {target}, whose files take any length; leave it out")
    if target == "cpu":
        return recipe
    form, then = lowering(target, seq=seq)
    return Recipe((*recipe.steps, *form.steps, *then.steps))
