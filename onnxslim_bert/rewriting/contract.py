"""What a pass is: it names the statistics that it wants, rewrites the model, and says what it changed."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from onnxslim_bert.calibration.observers import Want
from onnxslim_bert.errors import DataError
from onnxslim_bert.rewriting.options import check_options, dashed, write_option

if TYPE_CHECKING:
    from onnxslim_bert.model.onnx_model import Model
    from onnxslim_bert.rewriting.trials import Trials


@dataclass(frozen=True)
class Change:
    """What a pass did. Falsy when nothing changed, and then `note` says why.

    ran: the step as it would be written without measuring, like quantize-static{method=mse} after method=best; empty
    where that is the step itself.
    """

    count: int
    note: str
    details: Mapping[str, Any] = field(default_factory=dict)
    ran: str = ""

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(frozen=True)
class Context:
    """What the runner gives a pass besides the model: the statistics that it wanted, and trials when it measures."""

    stats: Mapping[Want, Any] = field(default_factory=dict)
    measured: "Trials | None" = None

    @property
    def trials(self) -> "Trials":
        """Trials on calibration rows. Raises DataError when there are none."""
        if self.measured is None:
            raise DataError("this pass measures on calibration data; name some with --calib")
        return self.measured


def promise(action: "type[Pass]") -> str:
    """What a pass says of the model's answers, as a sentence for its user."""
    if action.exact is None:
        return "Answers change: measure them."
    kept = f"Answers stay within {action.exact:g} of the largest, in float32; every run checks that on made-up rows."
    return kept if action.empty_rows else f"{kept} Rows without a real token, all padding, may answer otherwise."


class Pass(ABC):
    """One rewrite of the graph. Subclasses are frozen dataclasses whose fields are the options.

    What it promises stands in its class, and the runner (`recipes.promises`) holds it to that on probe rows:
    exact: how far answers may move, as a share of the largest one (of 1 where all are smaller); for rounding alone.
        None where the pass changes answers on purpose. Example: 1e-5 allows 3e-5 where the largest logit is 3.
    empty_rows: an exact pass keeps the answers of rows without a real token too, which attend to nothing.
    tokenwise: an exact pass changes only how a token is computed by itself, so that long rows need not be tried.
    ends_encoder: the graph is no longer read as an encoder after it.
    keeps_activations: tensors that keep their names keep their values, so statistics of them stay true.
    """

    name: ClassVar[str]
    exact: ClassVar[float | None] = None
    empty_rows: ClassVar[bool] = False
    tokenwise: ClassVar[bool] = False
    ends_encoder: ClassVar[bool] = False
    keeps_activations: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse options of another type; a pass that also limits their values calls this first. Raises PassError."""
        check_options(self)

    @property
    def tolerance(self) -> float | None:
        """What `exact` is with these options."""
        return self.exact

    @property
    def measures(self) -> bool:
        """Whether it tries things out on calibration rows while it works (`Context.trials`)."""
        return False

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """The batch and the length of every input after it; None where it leaves them as they are."""
        return None, None

    def at_length(self, seq: int) -> Self:
        """The same pass for rows of `seq` tokens; itself where it fixes no length."""
        return self

    def wants(self, model: "Model") -> Iterable[Want]:
        """The statistics that `apply` needs on this model."""
        return ()

    @abstractmethod
    def apply(self, model: "Model", ctx: Context) -> Change:
        """Rewrite `model`. Raises PassError when the model cannot have it."""

    def __str__(self) -> str:
        options = {
            option.name: getattr(self, option.name)
            for option in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, option.name) != option.default
        }
        text = ",".join(f"{dashed(name)}={write_option(value)}" for name, value in options.items())
        return f"{self.name}{{{text}}}" if text else self.name
