"""Where a written model is to run: a target, and the lengths of its inputs."""

from dataclasses import dataclass

from onnxslim_bert.errors import PassError
from onnxslim_bert.recipes.lowering import LOWERINGS
from onnxslim_bert.targets.table import CPU, target_named


@dataclass(frozen=True)
class Deployment:
    """Where a written model is to run.

    target: a name in `targets.table.TARGETS`, such as "cpu" or "qnn". seq: tokens in a row, for targets that take fixed
    shapes only; with several, one file is written for each. allow_fallback: accept nodes that the target's provider
    leaves to the CPU. Example: target="qnn", seq=(32, 128): a folder with a file for 32 and one for 128 tokens.

    Raises ProviderError for an unknown target, PassError for a length that is missing or a choice without effect.
    """

    target: str = "cpu"
    seq: tuple[int, ...] = ()
    allow_fallback: bool = False

    @property
    def is_lowered(self) -> bool:
        """Whether models are brought into a form of the target's own (`lowering`); for the CPU they end in int8."""
        return self.target != CPU.name

    def __post_init__(self) -> None:
        target_named(self.target)
        is_fixed = self.is_lowered and LOWERINGS[self.target].is_fixed
        if self.seq and not is_fixed:
            raise PassError(f"--seq does nothing for {self.target}, whose files take any length; leave it out")
        if self.allow_fallback and not self.is_lowered:
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


ON_CPU = Deployment()
