"""Encoders made at random, through both exporters: exact passes change no answer, and int8 is as good as dynamic."""

from pathlib import Path

import numpy as np
import pytest
from graphs import apply
from oracles import answers
from random_encoders import LAYERS, VOCABULARY, Kind, random_kind

from onnxslim_bert.arrays import Array
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Context, Pass

torch = pytest.importorskip("torch", reason="export needs the [export] extra: torch is not installed")
pytest.importorskip("onnxscript", reason="export needs the [export] extra: onnxscript is not installed")

from random_modules import Encoder  # noqa: E402

from onnxslim_bert.export.torch_export import Exporter, export_module  # noqa: E402

LENGTHS = (1, 2, 7, 16, 63)  # and the last position
LAST = 80
CASES: list[tuple[Exporter, int]] = [*(("torchscript", seed) for seed in (102, 103, 104, 107)), ("dynamo", 108)]
RECIPES: dict[str, tuple[Pass, ...]] = {
    "cpu": (Canonicalize(), Fuse(), FirstToken(), Unpad(), SkipMask()),
    "standard": (Canonicalize(), Fuse(style="standard"), FirstToken(), MaskBias()),
}
ALLOWED = 0.002  # of the mean cosine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


def rows(kind: Kind) -> list[tuple[dict[str, Array], Array]]:
    """Feeds of two rows of every length, and which tokens are real: all, padded right, padded left."""
    made = []
    for length in (*LENGTHS, LAST):
        rng, places = np.random.default_rng(length), np.arange(length)
        full, short = places < length, max(1, length // 2)
        for mask in [full] if kind.mask == "none" else [full, places < short, places >= length - short]:
            real = np.stack([mask, full])
            given = {"input_ids": np.where(real, rng.integers(2, VOCABULARY, real.shape), kind.pad)}
            made.append((given | ({"attention_mask": real.astype(np.int64)} if kind.mask == "input" else {}), real))
    return made


def exported(kind: Kind, seed: int, exporter: Exporter, folder: Path) -> Model:
    """The module of `kind` as `exporter` writes it; the export agrees with torch at other sizes."""
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    if kind.mask == "input":
        axes["attention_mask"] = {0: "batch", 1: "sequence"}
    result = {0: "batch", 1: "sequence"} if kind.head == "states" else {0: "batch"}
    given = [{name: feeds[name] for name in axes} for feeds, _ in rows(kind)]
    path = folder / f"{exporter}-{seed}.onnx"
    traced = next(feeds for feeds in given if feeds["input_ids"].shape[1] == 7)
    module = Encoder(kind, seed, 1 if exporter == "dynamo" else LAYERS)  # torch.export takes seconds a layer
    return Model.load(export_module(module, path, traced, given[-1:], {**axes, "output": result}, exporter=exporter))


def at_tokens(kind: Kind, values: Array, real: Array) -> Array:
    """Answers at padding are nobody's."""
    return np.where(real[:, :, None], values, 0) if kind.head == "states" else values


def cosines(model: Model, source: Model, kind: Kind) -> Array:
    found = []
    given = rows(kind)
    every = (answers(each, [feeds for feeds, _ in given]) for each in (model, source))
    for ours, theirs, (_, real) in zip(*every, given, strict=True):
        pair = (at_tokens(kind, each["output"], real).reshape(len(real), -1) for each in (ours, theirs))
        found += [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(*pair, strict=True)]
    return np.array(found)


@pytest.mark.parametrize(("exporter", "seed"), CASES)
def test_what_exporters_write_of_random_encoders_is_served(exporter, seed, folder):
    """Exact passes keep every answer within 1e-4 at every length and padding; int8 is no worse than dynamic ranges."""
    kind = random_kind(seed)
    source = exported(kind, seed, exporter, folder)
    given = rows(kind)
    wanted = answers(source, [feeds for feeds, _ in given])
    for name, steps in RECIPES.items():
        model = source.clone()
        for step in steps:
            step.apply(model, Context())
        for (feeds, real), ours, theirs in zip(given, answers(model, [f for f, _ in given]), wanted, strict=True):
            pair = (at_tokens(kind, each["output"], real) for each in (ours, theirs))
            assert np.abs(np.subtract(*pair)).max() < 1e-4, (name, real.shape, list(feeds), kind)
    means = {}
    for step in (QuantizeStatic(ranges="best", reduce_range=True), QuantizeDynamic(reduce_range=True)):
        model = source.clone()
        for each in (Canonicalize(), Fuse(), step):
            apply(each, model)
        means[step.name] = cosines(model, source, kind).mean()
    assert means["quantize-static"] >= means["quantize-dynamic"] - ALLOWED, (means, kind)
