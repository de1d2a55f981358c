"""Lowerings: for each target, the passes that bring an encoder of any exporter into a form that it takes whole.

The default mode of a target is the best one measured (docs/benchmarks.md, Targets).
"""

from dataclasses import dataclass
from typing import Literal

from onnxslim_bert.errors import PassError
from onnxslim_bert.recipes.int8 import STANDARD, int8
from onnxslim_bert.recipes.recipe import Recipe

Mode = Literal["static", "dynamic", "weight-only", "fp16", "fp32", "auto"]

PLAIN_MASK = ["mask-bias?", "split-sums?"]
INTEGER_GRAPH = ["lookup-positions?"]  # of positions, for models that count them from the ids
PHONE = ["plain-operators?"]
NNAPI = ["dense-2d", "gelu-tanh?", "unfuse-norms?", "lower-opset?", "int32-inputs?"]
FIXED = "fix-shapes{seq=SEQ}?"


@dataclass(frozen=True)
class Lowering:
    """How a model is written for one target.

    form: steps that bring the float graph into the target's form; FIXED is among them if it takes fixed shapes only.
    modes: by mode, the steps that follow, the default mode first. Example: {"fp16": ("float16",), "fp32": ()}.
    shares_data: whether several model files may keep their weights in one data file beside them.
    """

    form: tuple[str, ...]
    modes: dict[Mode, tuple[str, ...]]
    shares_data: bool = True

    @property
    def is_fixed(self) -> bool:
        """Whether the target takes fixed shapes only."""
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
        (STANDARD, FIXED, *PLAIN_MASK, *INTEGER_GRAPH, *PHONE), {"fp16": ("float16",), "fp32": ()}, shares_data=False
    ),
    "nnapi": Lowering((STANDARD, FIXED, *PLAIN_MASK, *INTEGER_GRAPH, *PHONE, *NNAPI), {"fp32": ()}, shares_data=False),
}
CPU_MODES: tuple[Mode, ...] = ("auto", "static", "dynamic", "weight-only", "fp16")


def mode_for(target: str, mode: Mode | None) -> Mode:
    """The mode asked for, or the target's default. Raises PassError for one that the target does not have."""
    modes = CPU_MODES if target == "cpu" else tuple(LOWERINGS[target].modes)
    if mode is not None and mode not in modes:
        raise PassError(f"--mode {mode} is not for {target}; it takes {' or '.join(modes)}")
    return mode or modes[0]


def lowering(target: str, mode: Mode | None = None, seq: int | None = None) -> tuple[Recipe, Recipe]:
    """Two recipes for a target other than the CPU: one brings the float graph into its form, the next is `mode`.

    mode: None for the target's default. seq: tokens in a row, for targets that take fixed shapes only. Raises PassError
    when it is missing there, and for a mode that the target does not have.
    """
    found = LOWERINGS[target]
    if found.is_fixed and seq is None:
        raise PassError(f"{target} takes fixed shapes only: give the tokens in a row, like --seq 128")
    form = ",".join(found.form).replace("SEQ", str(seq))
    then = found.modes[mode_for(target, mode)]
    return Recipe.parse(form), Recipe.parse(",".join(then)) if then else Recipe(())


def lowered(recipe: Recipe, target: str, seq: int | None) -> Recipe:
    """`recipe` followed by the passes for `target` in its default mode; for the CPU, `recipe` alone.

    Raises PassError when `seq` is missing for a target that takes fixed shapes only, or given for another one.
    """
    if seq is not None and (target == "cpu" or not LOWERINGS[target].is_fixed):
        raise PassError(f"--seq does nothing for {target}, whose files take any length; leave it out")
    if target == "cpu":
        return recipe
    form, then = lowering(target, seq=seq)
    return Recipe((*recipe.steps, *form.steps, *then.steps))
