"""The models that tests read: fixtures by name, taken through passes once and kept."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from packaging.version import Version

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.batches import Batch
from onnxslim_bert.graph.exits import NO_ROWS
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.trials import Trials

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(os.environ.get("ONNXSLIM_SHARED", Path(__file__).parents[2] / "shared"))

FAMILIES = ("bert", "roberta", "distilbert", "albert", "electra", "prenorm")
EXPORTS = (
    *("ts13-eager", "ts14-sdpa", "ts17-eager", "ts17-sdpa"),
    *("dynamo18-eager", "dynamo18-sdpa", "dynamo20-eager", "dynamo20-sdpa"),
)
EVERY = tuple(f"{family}-{export}" for family in FAMILIES for export in EXPORTS)
DISTINCT = (  # one export for each graph that `fuse` makes of them; test_fuse.py holds every other to be one of these
    *(f"{family}-{export}" for family in FAMILIES for export in ("ts17-sdpa", "dynamo18-eager", "dynamo20-sdpa")),
    *("roberta-ts13-eager", "prenorm-ts13-eager", "prenorm-ts14-sdpa"),
)
SOME = (  # each family, exporter, opset and attention at least once
    *("bert-ts13-eager", "roberta-ts17-sdpa", "distilbert-dynamo20-sdpa"),
    *("albert-ts14-sdpa", "electra-dynamo20-eager", "prenorm-dynamo18-eager"),
)

takes_no_rows = pytest.mark.skipif(
    Version(ort.__version__) < Version(NO_ROWS), reason=f"attention without rows needs onnxruntime {NO_ROWS}"
)

SMALLEST_TABLE = 19  # ids stay below the vocabulary of every model here


def fixture(name: str) -> Path:
    """The fixture called `name`."""
    return FIXTURES / f"{name}.onnx"


def reference(name: str) -> dict[str, Array]:
    """The weights by role from which the fixture `name` was exported (tools/tiny_models.py writes them)."""
    family = name.split("-")[0]
    return dict(np.load(FIXTURES / f"{family if family in FAMILIES else 'bert'}.npz"))


def shared_graph(name: str) -> Path:
    """A graph that others exported, which lies beside the checkout; skips the test when it does not."""
    path = SHARED / "graphs" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}: set ONNXSLIM_SHARED to the folder of shared material")
    return path


def prepared(name: str | Path, *steps: Pass) -> Model:
    """The fixture `name`, or the file at a path, after `steps`; calibrated on `batches` where they ask for it.

    A copy: free to be changed.
    """
    return _prepared(fixture(name) if isinstance(name, str) else name, steps).clone()


@functools.cache
def _prepared(path: Path, steps: tuple[Pass, ...]) -> Model:
    if not steps:
        return Model.load(path)
    model = _prepared(path, steps[:-1]).clone()
    apply(steps[-1], model)
    return model


forget_prepared = _prepared.cache_clear


def causal(model: Model) -> Model:
    """`model`, fused, with attention to earlier tokens alone, which is none that is proven."""
    for node in model.graph.nodes:
        if node.op == "MultiHeadAttention":
            node.attrs["unidirectional"] = 1
    model.changed()
    return model


def apply(step: Pass, model: Model) -> Change:
    """Let `step` rewrite `model`, calibrated on `batches`."""
    on_rows = trials(model)
    return step.apply(model, Context(on_rows.collect(model, step.wants(model)), on_rows))


def trials(model: Model, protected_ids: frozenset[int] = frozenset()) -> Trials:
    """Trials of what is made of `model`, on `batches`."""
    held_back = batches(model, ((4, 8), (2, 5)))
    return Trials(model.clone(), batches(model), held_back, protected_ids=protected_ids)


def batches(model: Model, sizes: Sequence[tuple[int, int]] = ((5, 9), (3, 4), (2, 13))) -> list[Batch]:
    """Ragged batches of these sizes (rows, length)."""
    given = [feeds(model, rows, length, seed=seed) for seed, (rows, length) in enumerate(sizes)]
    ends = np.cumsum([0, *(rows for rows, _ in sizes)])
    return [
        Batch(values, real_tokens(values), np.arange(start, end))
        for values, start, end in zip(given, ends[:-1], ends[1:], strict=True)
    ]


def feeds(model: Model, batch: int = 3, length: int = 7, padding: str = "ragged", seed: int = 0) -> dict[str, Array]:
    """Inputs [batch, length] for a model of token ids, a mask and token types, whichever of them it has.

    padding: a name in `PADDINGS`. Padding positions hold random ids, so that a model that reads them shows.
    """
    rng = np.random.default_rng([seed, batch, length])
    made: dict[str, Array] = {}
    for tensor in model.graph.inputs:
        if "mask" in tensor.name:
            values = PADDINGS[padding](batch, length)
        else:
            low, high = (0, 2) if "type" in tensor.name else (2, SMALLEST_TABLE)
            values = rng.integers(low, high, (batch, length))
        made[tensor.name] = values.astype(tensor.dtype)
    return made


def every_padding(model: Model) -> list[dict[str, Array]]:
    """A batch of each kind of padding, and one sentence alone."""
    return [feeds(model, padding=padding) for padding in PADDINGS] + [feeds(model, 1, 5), feeds(model, 1, 5, "holes")]


def real_tokens(given: dict[str, Array]) -> Array:
    """Where a batch holds real tokens, bool [batch, length]."""
    masks = [values for name, values in given.items() if "mask" in name]
    return masks[0].astype(bool) if masks else np.ones_like(next(iter(given.values())), bool)


def _ragged(batch: int, length: int) -> Array:
    """The first row is full, the last the shortest, down to one token."""
    lengths = np.linspace(length, 1, batch).round() if batch > 1 else np.array([length])
    return np.arange(length) < lengths[:, None]


def _holes(batch: int, length: int) -> Array:
    mask = np.random.default_rng(batch).random((batch, length)) < 0.5
    mask[:, 1:3] = [True, False]
    return mask


PADDINGS = {
    "ragged": _ragged,
    "full": lambda batch, length: np.ones((batch, length), bool),
    "left": lambda batch, length: _ragged(batch, length)[:, ::-1],
    "holes": _holes,
}
