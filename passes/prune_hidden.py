"""Make the residual stream narrower."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.observers import Gram, Want
from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.spans import find_spans
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.pruning.narrow import check_narrow, every_value, keep_channels, restore, short_row
from onnxslim_bert.rewriting.pruning.stream import Stream, follow_stream
from onnxslim_bert.rewriting.pruning.stream_choice import all_channels, choose_channels, stream_readers, together
from onnxslim_bert.rewriting.pruning.stream_places import refit_places
from onnxslim_bert.rewriting.pruning.stream_refit import refit
from onnxslim_bert.rewriting.pruning.surgery import check_float32
from onnxslim_bert.rewriting.trials import Trials

UNSET = -1
KEEP = 0.75
GRID = 32  # the widths that int8 kernels run at full speed
GRAM_BYTES = 160e6  # of second moments, held at once


@dataclass(frozen=True)
class PruneHidden(Pass):
    """Remove channels of the residual stream, from the embeddings to the last layer, and refit what is around it.

    A channel is a column of every embedding table and of every matrix that writes the stream (`output`, `down`), a row
    of every one that reads it (`query`, `key`, `value`, `up`, the head), and an element of every norm between. Which
    go? Those without which what reads the stream can still be computed best from the others, on calibration rows, all
    places together (optimal brain surgeon on the second moments of the stream). The same go everywhere. Heads and
    neurons stay.

    What is left is a plain narrower encoder: its norms divide by the number of channels that it has, and take the mean
    and the variance of those. So even with the same weights its channels are not quite what they were. The refit, from
    the first layer to the last, makes up for that: gamma and beta are rescaled, and the matrices around the stream
    fitted by least squares to what the whole encoder computes there. Matrices without a bias, and those that layers
    share (ALBERT), are cut and not fitted.

    Where the stream itself is given to the user (sentence embeddings, hidden states), outputs keep their width: a dense
    layer behind the last layer computes the lost channels from the others, and the head behind it stays whole.

    Give keep or width, or none for keep=0.75:
    keep: share of the channels kept, in (0, 1]. Streams of 256 channels or more keep a multiple of 32.
    width: the number of channels kept. Example: 384 channels and keep=0.667 are width=256.

    refit: False cuts and fits nothing again.

    Muralidharan et al. 2024 (Minitron: channels chosen by activations, norms cut with them, then distilled),
    https://arxiv.org/abs/2407.14679; Xia et al. 2023 (Sheared LLaMA), https://arxiv.org/abs/2310.06694; Kurtic et al.
    2023, https://arxiv.org/abs/2302.04089
    """

    name: ClassVar[str] = "prune-hidden"
    keep: float = UNSET
    width: int = UNSET
    refit: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep != UNSET and self.width != UNSET:
            raise PassError("prune-hidden: keep and width are given; give one of them")
        if self.keep != UNSET and not 0 < self.keep <= 1:
            raise PassError(f"prune-hidden: keep={self.keep} is not in (0, 1]")
        if self.width != UNSET and self.width < 1:
            raise PassError(f"prune-hidden: width={self.width} is not 1 or more")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        hidden = model.encoder.hidden
        width = self.width_of(hidden)
        if width == hidden:
            return Change(0, f"all {hidden} channels are kept")
        check_float32(model, {f"the {role} table": name for role, name in model.encoder.embeddings.tables.items()})
        trials = ctx.trials
        feeds = short_row(model, trials)
        before = every_value(model, feeds)
        stream, last = _followed(model, before)
        kept = choose_channels(_moments(model, stream, last, trials), width)
        narrow = model.clone()
        keep_channels(narrow, stream, kept)
        if last is not None:
            want = Want(last, "gram")
            restore(narrow, last, *all_channels(trials.collect(model, [want], "measuring the stream")[want], kept))
        check_narrow(before, narrow, stream, kept, last, feeds)
        errors = list[float]()
        if self.refit:
            errors = refit(narrow, model, refit_places(narrow, stream, last), kept, trials)
        model.graph = narrow.graph
        model.changed()
        damage = trials.damage(model)
        note = f"{hidden - width} of {hidden} channels removed; the answers change by {damage:.1%}"
        if last is not None:
            note += f"; a dense layer restores {hidden} behind the last layer"
        return Change(hidden - width, note, {"kept": kept.tolist(), "errors": [round(x, 4) for x in errors]})

    def width_of(self, hidden: int) -> int:
        """How many of `hidden` channels are kept. Raises PassError for more than there are, and for none."""
        if self.width != UNSET:
            if self.width > hidden:
                raise PassError(f"prune-hidden: width={self.width} is more than the stream has, {hidden}")
            return self.width
        keep = KEEP if self.keep == UNSET else self.keep
        step = GRID if hidden >= 8 * GRID and keep < 1 else 1
        if not (width := int(hidden * keep + 1e-9) // step * step):
            raise PassError(f"prune-hidden: keep={keep} of {hidden} channels leaves fewer than {step}")
        return width


def _followed(model: Model, values: dict[str, Array]) -> tuple[Stream, str | None]:
    """The stream; and the state behind the last layer, where it ends because the user gets it whole, else None."""
    stream = follow_stream(model, values)
    if not stream.outputs:
        return stream, None
    for name in _ends(model, stream):
        ended = follow_stream(model, values, name)
        if not ended.outputs:
            return ended, name
    raise PassError(
        f"prune-hidden: the output {stream.outputs[0]!r} is the stream before the last layer's end; needed outputs "
        "behind it; export the model without hidden states"
    )


def _ends(model: Model, stream: Stream) -> Iterator[str]:
    """Tensors at which the stream may end: the last layer's end, where it is found, and those behind its sum."""
    with contextlib.suppress(PassError):
        yield find_spans(model)[-1].exit
    last = model.encoder.layers[-1]
    tensors = model.graph.tensors()
    source = tensors[(last.down or last.output).result]
    behind = {id(tensor) for tensor in source.outputs[0].outputs} if source.outputs else set()
    for node in model.graph.nodes:  # in execution order
        if any(id(tensor) in behind for tensor in node.inputs):
            behind |= {id(tensor) for tensor in node.outputs}
        yield from (t.name for t in node.outputs if id(t) in behind and t.name in stream.axes)


def _moments(model: Model, stream: Stream, last: str | None, trials: Trials) -> Iterator[tuple[Gram, Array]]:
    """The second moments of the stream at each place where it is read, and the matrices there, [hidden, d_out]."""
    weights = together(model, stream_readers(model, stream))
    if last is not None:
        weights[last] = np.hstack([weights[last], np.eye(stream.width)]) if last in weights else np.eye(stream.width)
    wants = [Want(name, "gram") for name in weights]
    several = max(1, int(GRAM_BYTES / (8 * stream.width**2)))
    for start in range(0, len(wants), several):
        stats = trials.collect(model, wants[start : start + several], "measuring the stream")
        yield from ((gram, weights[want.tensor]) for want, gram in stats.items())
