"""Hold the passes of a recipe to what their classes promise, while it runs."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, PassError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.recipes.probes import Limits, Probe
from onnxslim_bert.rewriting.contract import Pass

HALF = 2e-2  # what rounding may leave of answers in float16, of which a number has 11 bits
QUANTIZED = 5e-2  # where activations are rounded to integers: a difference in the last bit may become one of a step
INTEGERS = ("QuantizeLinear", "DynamicQuantizeLinear")


class Promises:
    """Compares a model before and after each pass. One object serves all passes of a recipe: answers are shared.

    After every pass the graph is valid, names are unique and the encoder is found, unless these were not so before it,
    or the pass says that it ends the encoder. After an exact pass (`Pass.exact`) the answers on probe rows are those
    from before. What the pass left alone costs nothing; an exact one takes one session, and one more for the answers
    before it where they are not known from the pass before.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._last: _State | None = None

    def before(self, model: Model) -> "_State":
        """How the model is, to be given to `check` after the pass."""
        state = _State(model, self._threads)
        return self._last if self._last is not None and self._last == state else state

    def check(self, action: Pass, before: "_State", model: Model) -> None:
        """Raise PassError that names `action` and what it broke, now that it has changed `model`.

        Raises ModelError when ONNX Runtime refuses the model from before an exact pass.
        """
        after = _State(model, self._threads)
        if after == before:
            self._last = before
            return
        if (reason := after.invalid) and not before.invalid:
            raise PassError(f"{action.name} broke the graph: {reason}")
        if (reason := no_encoder(model)) and not action.ends_encoder and not no_encoder(before.model):
            raise PassError(f"{action.name} broke the encoder, which is no longer found: {reason}")
        self._last = after
        limits = None if action.tolerance is None else Limits.of(model) or Limits.of(before.model)
        if action.tolerance is None or limits is None:
            return
        probes = limits.probes(empty=action.empty_rows)
        allowed = max(action.tolerance, before.rounding, after.rounding)
        expected = before.answers(probes)
        try:
            actual = after.answers(probes)
        except ModelError as error:
            raise PassError(f"{action.name} left a model that does not run: {error}") from error
        for probe, ours, theirs in zip(probes, actual, expected, strict=True):
            if theirs is None:
                continue  # the model did not take such rows before either
            if ours is None:
                raise PassError(f"{action.name} left a model that does not run on {probe.what}")
            difference = farthest(ours, theirs)
            if not difference <= allowed:
                raise PassError(
                    f"{action.name} promises the same answers within {allowed:g}, "
                    f"and they differ by {difference:.2g} of the largest on {probe.what}"
                )


def farthest(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The largest difference of two models' float answers, as a share of the largest answer or of 1 where that is more.

    Infinite when shapes differ, or where only one of them is a number.
    """
    found = 0.0
    for actual, expected in zip(ours, theirs, strict=True):
        if actual.shape != expected.shape or (np.isfinite(actual) != np.isfinite(expected)).any():
            return np.inf
        if expected.dtype.kind == "f" and (known := np.isfinite(expected)).any():
            exact = expected[known].astype(np.float64)
            found = max(found, np.abs(actual[known] - exact).max() / max(np.abs(exact).max(), 1.0))
    return found


def no_encoder(model: Model) -> str:
    """Why no encoder is found in `model`, empty when there is one."""
    try:
        return "" if model.encoder else "no encoder"
    except ModelError as error:
        return str(error)


class _State:
    """A model as it is at one moment. Equal to another when graph and weights are the same."""

    def __init__(self, model: Model, threads: int) -> None:
        self.model = model.clone()
        self._threads = threads
        skeleton, self._weights = self.model.skeleton()
        self._graph = skeleton.graph.SerializeToString(deterministic=True)
        self._known: dict[tuple[Limits, str], list[Array] | None] = {}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _State)
            and self._graph == other._graph
            and all(values is other._weights[name] for name, values in self._weights.items())
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def invalid(self) -> str:
        """Why the graph is not valid, empty when it is."""
        names = [node.name for node in self.model.graph.nodes if node.name]
        if twice := next((name for name in names if names.count(name) > 1), None):
            return f"two nodes are called {twice!r}"
        try:
            self.model.check()
        except ModelError as error:
            return str(error)
        return ""

    @cached_property
    def rounding(self) -> float:
        """How far apart the answers of two equal models may be for their precision alone."""
        constants = self.model.constants().values()
        half = any(constant.values.dtype == np.float16 for constant in constants)
        integers = any(node.op in INTEGERS for node in self.model.graph.nodes)
        return max(HALF * half, QUANTIZED * integers)

    def answers(self, probes: Sequence[Probe]) -> list[list[Array] | None]:
        """All outputs for each probe; None for a probe on which the model does not run. Raises ModelError."""
        if missing := [probe for probe in probes if (probe.limits, probe.what) not in self._known]:
            session = model_session(self.model, threads=self._threads)
            types = {tensor.name: tensor.dtype for tensor in self.model.graph.inputs}
            for probe in missing:
                feeds = {name: values.astype(types[name]) for name, values in probe.feeds.items() if name in types}
                try:
                    self._known[probe.limits, probe.what] = run(session, feeds)
                except ModelError:
                    self._known[probe.limits, probe.what] = None
        return [self._known[probe.limits, probe.what] for probe in probes]
