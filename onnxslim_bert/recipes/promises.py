"""Hold the passes of a recipe to what their classes promise, while it runs."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, PassError
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.graph.words import called
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session, skeleton_session
from onnxslim_bert.model.validity import check_types, check_valid
from onnxslim_bert.recipes.probes import Limits, Probe
from onnxslim_bert.rewriting.contract import Pass

HALF = 2e-2  # how far answers of equal float16 models may differ by rounding; such numbers have 11 bits
QUANTIZED = 5e-2  # the same where activations are rounded to integers: a difference in the last bit may become a step
DRAWING = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
    "Dropout",
)
INTEGERS = ("QuantizeLinear", "DynamicQuantizeLinear")
NOISE = 8  # answers may move by so many times what the last bits of the weights do: large terms may cancel in them
DRAWS = 16  # of last bits: sums beside a large number, like a score and its mask's -10000, move in rare and large steps


class Promises:
    """Compares a model before and after each pass. One object serves all passes of a recipe.

    After every pass three things must hold, if they held before it: the graph is valid, node names are unique, and an
    encoder is found (unless the pass says that it ends that). After exact passes (`Pass.exact`) the answers on probe
    rows must be those from before, too.

    Answers take time, so exact passes in a row are compared together: the model before the first with the model after
    the last. Only where those differ is each pass compared alone, to name the one at fault. Example: canonicalize, fuse
    and first-token take two sessions when all is well. A pass that changed nothing costs nothing.
    """

    def __init__(self, *, threads: int = 1) -> None:
        self._threads = threads
        self._exact: list[tuple[Pass, _State, _State]] = []  # in a row: the pass, the model before it and after it

    def before(self, action: Pass, model: Model) -> "_State":
        """The state of `model` before `action`, to be given to `check` afterwards. Raises as `settle` does.

        It settles earlier exact passes if `action` is not exact, or if `model` was changed since the last of them.
        """
        state = _State(model, self._threads)
        last = self._exact[-1][2] if self._exact else state
        if action.tolerance is None or last != state:
            self.settle()
        return last if last == state else state

    def check(self, action: Pass, before: "_State", model: Model) -> None:
        """Raise PassError that names `action` and what it broke, now that it has changed `model`."""
        after = _State(model, self._threads)
        if after == before:
            return
        if (reason := after.invalid) and not before.invalid:
            raise PassError(f"{action.name} broke the graph: {reason}")
        if (reason := no_encoder(model)) and not action.ends_encoder and not no_encoder(before.model):
            broke = f"{action.name} broke the encoder, which is no longer found: {reason}"
            raise PassError(f"{broke}; run `canonicalize` before {action.name}, or leave it out")
        if action.tolerance is not None:
            after.limits = Limits.of(model) or Limits.of(before.model)
            self._exact.append((action, before, after))

    def settle(self) -> None:
        """Compare answers from before and after the exact passes that ran since the last time.

        Raises PassError that names the pass that broke its promise, ModelError when ONNX Runtime refuses the model from
        before them.
        """
        done, self._exact = self._exact, []
        if done and not _same_answers([action for action, _, _ in done], done[0][1], done[-1][2]):
            for action, before, after in done:
                _same_answers([action], before, after, said=True)


def _same_answers(actions: Sequence[Pass], before: "_State", after: "_State", *, said: bool = False) -> bool:
    """Whether exact passes kept the answers on probe rows.

    They did where answers move by no more than the sum of the passes' tolerances, or the models' precision leaves
    (`_State.rounding`), or NOISE times what weights changed in their last bit do (`_State.noisy`).
    said: if they did not, raise PassError that names the first of `actions` and the difference.
    """
    limits = after.limits
    if limits is None:
        return True
    tolerance = sum(action.tolerance or 0 for action in actions)
    allowed = max(tolerance, before.rounding, after.rounding)
    probes = [probe for probe in limits.probes() if not probe.empty or all(action.empty_rows for action in actions)]
    if all(action.tokenwise for action in actions):
        probes = [probe for probe in probes if not probe.long]
    name = actions[0].name
    expected = before.answers(probes)
    try:
        actual = after.answers(probes)
    except ModelError as error:
        if said:
            raise PassError(f"{name} left a model that does not run: {error}") from error
        return False
    for probe, ours, theirs in zip(probes, actual, expected, strict=True):
        if theirs is None:
            continue  # the model did not take such rows before either
        difference = np.inf if ours is None else farthest(ours, theirs)
        if not difference <= allowed and not before.noisy(probe, difference):
            if said:
                before.check_repeats()
                found = "the model does not run" if ours is None else f"they differ by {difference:.2g} of the largest"
                raise PassError(
                    f"{name} promises the same answers within {allowed:g}, and {found} on {probe.what} "
                    "(of random ids): a fault of the pass"
                )
            return False
    return True


def farthest(ours: Sequence[Array], theirs: Sequence[Array]) -> float:
    """The largest difference of two models' float answers, as a share of the largest of `theirs`, or of 1 if more.

    Infinite when shapes differ, or where one answer is a finite number and the other is not. Example: [3.0, -4.2] is
    0.05 from [3.0, -4.0].
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
    """A model as it is at one moment. Two are equal when their graphs are, and their weights are the same arrays."""

    def __init__(self, model: Model, threads: int) -> None:
        self._skeleton, self._weights = model.skeleton()
        self._graph = self._skeleton.graph.SerializeToString(deterministic=True)
        self._path, self._threads = model.path, threads
        self.limits: Limits | None = None
        self._known: dict[tuple[Limits, str], list[Array] | None] = {}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _State)
            and self._graph == other._graph
            and all(values is other._weights[name] for name, values in self._weights.items())
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def model(self) -> Model:
        """A copy of the model, made when it is first needed; it shares the arrays."""
        return Model.from_proto(self._skeleton, self._weights, self._path)

    @cached_property
    def invalid(self) -> str:
        """Why the graph is not valid, empty when it is."""
        named = Counter(node.name for node in self._skeleton.graph.node if node.name)
        if twice := next((name for name, count in named.items() if count > 1), None):
            return f"two nodes are called {twice!r}"
        try:
            check_valid(self._skeleton, self._weights)
            check_types(self._skeleton, self._weights)
        except ModelError as error:
            return str(error)
        return ""

    @cached_property
    def rounding(self) -> float:
        """How far apart the answers of two equal models may be because of this one's precision; 0 in float32."""
        half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in self._skeleton.graph.initializer)
        integers = any(node.op_type in INTEGERS for node in self._skeleton.graph.node)
        return max(HALF * half, QUANTIZED * integers)

    def check_repeats(self) -> None:
        """Raise ModelError where the model draws random numbers: no other answers as it does."""
        if drawing := next((node for node in self._skeleton.graph.node if node.op_type in DRAWING), None):
            raise ModelError(f"{called(drawing)} draws random numbers, so no two answers are one; export for inference")

    def noisy(self, probe: Probe, difference: float) -> bool:
        """Whether `difference` is at most NOISE times what the last bits of the float weights make, in one of DRAWS."""
        (exact,) = self.answers([probe])
        if exact is None or np.isinf(difference):
            return False
        feeds = self._feeds(probe)
        return any(difference <= NOISE * farthest(run(self._nearby(i), feeds), exact) for i in range(DRAWS))

    def _nearby(self, draw: int) -> ort.InferenceSession:
        """A session on the model with every float weight off by its last bit, up or down at random."""
        near, rng = self.model.clone(), np.random.default_rng(draw)
        for name, values in self._weights.items():
            if values.dtype.kind == "f":
                step = rng.choice(np.array([-1, 1], values.dtype), values.shape) * np.finfo(values.dtype).eps
                near.replace(name, values * (1 + step))
        return model_session(near, threads=self._threads, optimize=False)

    def answers(self, probes: Sequence[Probe]) -> list[list[Array] | None]:
        """All outputs for each probe; None for a probe on which the model does not run. Raises ModelError."""
        if missing := [probe for probe in probes if (probe.limits, probe.what) not in self._known]:
            skeleton = onnx.ModelProto()
            skeleton.CopyFrom(self._skeleton)
            session = skeleton_session(skeleton, self._weights, self._path, threads=self._threads, optimize=False)
            for probe in missing:
                try:
                    self._known[probe.limits, probe.what] = run(session, self._feeds(probe))
                except ModelError:
                    self._known[probe.limits, probe.what] = None
        return [self._known[probe.limits, probe.what] for probe in probes]

    def _feeds(self, probe: Probe) -> dict[str, Array]:
        types = {
            taken.name: onnx.helper.tensor_dtype_to_np_dtype(taken.type.tensor_type.elem_type)
            for taken in self._skeleton.graph.input
        }
        return {name: values.astype(types[name]) for name, values in probe.feeds.items() if name in types}
