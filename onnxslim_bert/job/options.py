"""What the user of the main job may choose."""

from dataclasses import dataclass
from typing import Literal

from onnxslim_bert.calibration.ranges import Method
from onnxslim_bert.errors import PassError
from onnxslim_bert.recipes.lowering import LOWERINGS, Mode, mode_for

Format = Literal["contrib", "qdq"]


@dataclass(frozen=True)
class Options:
    """How a model is made smaller, and for what.

    target: on what it is to run, a name in `targets.table.TARGETS`. mode: None is the target's best measured one.
    seq: tokens in a row, for targets that take fixed shapes only; a file for each of several.
    method: how activation ranges follow from calibration; None chooses by measured fidelity.
    batch: for throughput, batches of ragged texts: padding never reaches a dense layer.
    reduce_range: keep int8 products within 16 bits; None does where this machine's kernels need it.
    max_length: tokens kept of a calibration or evaluation row, as far as the model has positions.
    allow_fallback: accept nodes that the target's provider leaves to the CPU.

    Raises PassError for a choice that would be ignored.
    """

    mode: Mode | None = None
    method: Method | None = None
    format: Format = "contrib"
    smooth: bool = True
    batch: bool = False
    max_length: int = 128
    threads: int = 1
    seed: int = 0
    target: str = "cpu"
    seq: tuple[int, ...] = ()
    reduce_range: bool | None = None
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", mode_for(self.target, self.mode))
        here = "" if self.target == "cpu" else f" for {self.target}"
        static = self.mode == "static" and self.target in ("cpu", "openvino")
        is_fixed = self.target != "cpu" and LOWERINGS[self.target].is_fixed
        int8 = self.target == "cpu" and self.mode in ("static", "dynamic")
        ignored = {
            "--method": not static and self.method is not None,
            "--no-smooth": not static and not self.smooth,
            "--format qdq": not int8 and self.format == "qdq",
            "--batch": self.target != "cpu" and self.batch,
            "--reduce-range": not (static and self.target == "cpu") and self.reduce_range is not None,
        }
        for option, given in ignored.items():
            if given:
                raise PassError(f"{option} does nothing with --mode {self.mode}{here}; leave it out")
        if self.seq and not is_fixed:
            raise PassError(f"--seq does nothing for {self.target}, whose files take any length; leave it out")
        if self.allow_fallback and self.target == "cpu":
            raise PassError("--allow-fallback does nothing for cpu; leave it out")
        if is_fixed and not self.seq:
            raise PassError(f"{self.target} takes fixed shapes only: give the tokens in a row, like --seq 128")
        if len(self.seq) > 1 and not LOWERINGS[self.target].shares_data:
            raise PassError(
                f"{self.target} takes no weights from outside a model's file, so that several lengths cannot share "
                "them; give one --seq a file"
            )
        if len(set(self.seq)) < len(self.seq):
            raise PassError("--seq names a length twice")
