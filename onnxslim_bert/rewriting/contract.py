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
    """What a pass did. It is false (`if not change`) when nothing changed.

    count: how many things changed: layers, nodes, units. note: what was done, in a line; or why nothing was. details:
    numbers for the report. ran: the step that does the same without measuring; empty where that is the step itself.
    Example: quantize-static{method=best} ran as quantize-static{method=mse}.
    """

    count: int
    note: str
    details: Mapping[str, Any] = field(default_factory=dict)
    ran: str = ""

    def __bool__(self) -> bool:
        return self.count > 0


@dataclass(frozen=True)
class Context:
    """What the runner gives a pass besides the model.

    stats: the statistics that the pass asked for (`Pass.wants`), by what it asked. measured: trials on calibration
    rows; None when there are no such rows. A pass asks for them as `trials`.
    """

    stats: Mapping[Want, Any] = field(default_factory=dict)
    measured: "Trials | None" = None

    @property
    def trials(self) -> "Trials":
        """Trials on calibration rows. Raises DataError when there are none."""
        if self.measured is None:
            raise DataError("this pass measures on calibration data; name some with --calib")
        return self.measured


def promise(action: "type[Pass]") -> str:
    """What the pass promises of the model's answers, in words for its user."""
    if action.exact is None:
        return "Answers change: measure them."
    kept = f"Answers stay within {action.exact:g} of the largest, in float32; every run checks that on made-up rows."
    return kept if action.empty_rows else f"{kept} Rows without a real token, all padding, may answer otherwise."


class Pass(ABC):
    """One rewrite of the graph. Subclasses are frozen dataclasses whose fields are the options.

    What a pass promises stands in its class. The runner holds it to the first four (`recipes.promises`); answers are
    compared on made-up rows.
    exact: how far rounding may move the answers, as a share of the largest one, or of 1 where all are smaller. None
        where the pass changes answers on purpose. Example: 1e-5 allows 3e-5 where the largest logit is 3.
    empty_rows: an exact pass keeps the answers to rows of padding alone too.
    tokenwise: an exact pass changes only what is computed for each token by itself, so that rows of a few tokens prove
        it and long ones need not be tried.
    ends_encoder: no encoder is found in the graph after the pass, and none is looked for.
    takes_exits: it runs behind `early-exit`, where layers see some rows of a batch or none. No other pass does.
    keeps_activations: tensors that keep their names keep their values, so that statistics collected before the pass
        serve those after it.
    """

    name: ClassVar[str]
    exact: ClassVar[float | None] = None
    empty_rows: ClassVar[bool] = False
    tokenwise: ClassVar[bool] = False
    ends_encoder: ClassVar[bool] = False
    takes_exits: ClassVar[bool] = False
    keeps_activations: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Raise PassError for an option that is not of its type. A pass that also checks values calls this first."""
        check_options(self)

    @property
    def tolerance(self) -> float | None:
        """`exact` as it holds with these options; a pass that is exact with some of them only overrides this."""
        return self.exact

    @property
    def measures(self) -> bool:
        """Whether the pass tries things out on calibration rows while it works (`Context.trials`)."""
        return False

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """The batch and the length to which the pass fixes every input; None where it leaves them as they are."""
        return None, None

    def at_length(self, seq: int) -> Self:
        """The same pass, fixing the length `seq`; the pass itself where it fixes none."""
        return self

    def wants(self, model: "Model") -> Iterable[Want]:
        """The statistics that `apply` needs on this model."""
        return ()

    @abstractmethod
    def apply(self, model: "Model", ctx: Context) -> Change:
        """Rewrite `model` in place. Raises PassError when the pass cannot work on this model."""

    def __str__(self) -> str:
        options = {
            option.name: getattr(self, option.name)
            for option in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, option.name) != option.default
        }
        text = ",".join(f"{dashed(name)}={write_option(value)}" for name, value in options.items())
        return f"{self.name}{{{text}}}" if text else self.name
