"""Make tests/fixtures: tiny encoders from every exporter, what is in them, and models that are no plain encoder.

    python tools/make_fixtures.py [FOLDER]

Needs the [export] extra. The same versions of torch, transformers, onnx and onnxruntime give the same bytes.

    {family}-{export}-{eager|sdpa}.onnx     48: 6 families, exports ts13, ts17, dynamo18, dynamo20 (with SDPA ts14
                                            for ts13: TorchScript cannot write SDPA before opset 14)
    {family}.npz                            weights by role, sizes, one padded batch, its logits (tiny_models.reference)
    bert-dynamo23-sdpa.onnx                 the Attention operator of opset 23
    bert-{features,features-pooled}.onnx    last_hidden_state; and pooler_output
    bert-{mlm,mlm-tied}.onnx                word table stored twice, as exported; and once
    bert-nomask.onnx                        no attention_mask
    fused-{attention,mha}.onnx              bert-ts17-eager after onnxruntime.transformers
    quantized-{dynamic,qdq}.onnx            bert-dynamo18-eager after onnxruntime.quantization
    decoder-{ts17,dynamo18}.onnx, mlp.onnx, cnn.onnx    no encoders
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from tiny_models import FAMILIES, HEAD_DIM, HEADS, SIZES, build, classifier, randomize, reference
from torch import nn

from onnxslim_bert.arrays import Array
from onnxslim_bert.export.hugging_face import ROWS, TOKENS, example_feeds
from onnxslim_bert.export.torch_export import Axes, Exporter, export_module, quiet, strip

EXPORTS: tuple[tuple[str, Exporter, int, str], ...] = (
    ("ts13-eager", "torchscript", 13, "eager"),
    ("ts14-sdpa", "torchscript", 14, "sdpa"),
    ("ts17-eager", "torchscript", 17, "eager"),
    ("ts17-sdpa", "torchscript", 17, "sdpa"),
    ("dynamo18-eager", "dynamo", 18, "eager"),
    ("dynamo18-sdpa", "dynamo", 18, "sdpa"),
    ("dynamo20-eager", "dynamo", 20, "eager"),
    ("dynamo20-sdpa", "dynamo", 20, "sdpa"),
)
GPT2_SIZES = {"vocab_size": 37, "n_positions": 23, "n_embd": 12, "n_layer": 1, "n_head": 3, "n_inner": 20}
NO_SPECIALS = {"bos_token_id": None, "eos_token_id": None}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, family) in enumerate(FAMILIES.items()):
        for export, exporter, opset, attention in EXPORTS:
            model = classifier(family, attention, seed)
            write_text_model(model, folder / f"{name}-{export}.onnx", {"logits": ROWS}, exporter, opset)
        model = classifier(family, "eager", seed)
        found = reference(family, model, example_feeds(model, (3, 7)))
        np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **found)
    write_variants(folder)
    write_others(folder)
    with quiet():
        write_fused(folder)
        write_quantized(folder)


def write_text_model(model: Any, path: Path, outputs: Axes, exporter: Exporter, opset: int, without: str = "") -> None:
    """Export a transformers model, less the input named `without`."""
    traced, *checked = (
        {name: values for name, values in example_feeds(model, size).items() if name != without}
        for size in ((2, 8), (3, 7), (1, 5))
    )
    axes = {**dict.fromkeys(traced, TOKENS), **outputs}
    export_module(model, path, traced, checked, axes, exporter=exporter, opset=opset)


def write_variants(folder: Path) -> None:
    """BERT with other heads, inputs and operators."""
    bert = classifier(FAMILIES["bert"], "sdpa", seed=0)
    write_text_model(bert, folder / "bert-dynamo23-sdpa.onnx", {"logits": ROWS}, "dynamo", 23)
    write_text_model(bert, folder / "bert-nomask.onnx", {"logits": ROWS}, "dynamo", 18, without="attention_mask")

    features = build("AutoModel", "bert", SIZES, "sdpa", seed=10)
    outputs = {"last_hidden_state": TOKENS, "pooler_output": ROWS}
    write_text_model(features, folder / "bert-features-pooled.onnx", outputs, "dynamo", 18)
    features.pooler = None
    write_text_model(features, folder / "bert-features.onnx", {"last_hidden_state": TOKENS}, "dynamo", 18)

    masked_lm = build("AutoModelForMaskedLM", "bert", SIZES | {"num_hidden_layers": 2}, "sdpa", seed=11)
    write_text_model(masked_lm, folder / "bert-mlm.onnx", {"logits": TOKENS}, "dynamo", 18)
    save(tied(onnx.load(folder / "bert-mlm.onnx")), folder / "bert-mlm-tied.onnx")


def tied(model: onnx.ModelProto) -> onnx.ModelProto:
    """The decoder reads the word table through a Transpose, as Optimum writes it; both exporters store it twice."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    word = next(name for name, array in arrays.items() if array.shape == (37, 12))
    copy = next(name for name, array in arrays.items() if array.shape == (12, 37))
    assert np.array_equal(arrays[word], arrays[copy].T)
    model.graph.initializer.remove(next(tensor for tensor in model.graph.initializer if tensor.name == copy))
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", [word], [copy], "node_tie", perm=[1, 0]))
    return model


def write_others(folder: Path) -> None:
    """A causal decoder, an MLP and a CNN: none is an encoder, all have a Softmax."""
    decoder = build("AutoModelForCausalLM", "gpt2", GPT2_SIZES | NO_SPECIALS, "eager", seed=20)
    write_text_model(decoder, folder / "decoder-ts17.onnx", {"logits": TOKENS}, "torchscript", 17)
    decoder = build("AutoModelForCausalLM", "gpt2", GPT2_SIZES | NO_SPECIALS, "sdpa", seed=20)
    write_text_model(decoder, folder / "decoder-dynamo18.onnx", {"logits": TOKENS}, "dynamo", 18)

    mlp = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.LayerNorm(20), nn.Linear(20, 5), nn.Softmax(dim=-1))
    write_plain_model(mlp, folder / "mlp.onnx", (12,))
    convolutions = (nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 3), nn.ReLU())
    cnn = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4), nn.Softmax(dim=-1))
    write_plain_model(cnn, folder / "cnn.onnx", (3, 11, 13))


def write_plain_model(model: nn.Module, path: Path, shape: tuple[int, ...]) -> None:
    """Export a module of one float input [batch, *shape]."""
    rng = np.random.default_rng(0)
    traced, *checked = ({"input": rng.normal(size=(batch, *shape)).astype(np.float32)} for batch in (2, 3, 1))
    axes = {"input": ROWS, "probabilities": ROWS}
    export_module(randomize(model, seed=21), path, traced, checked, axes, exporter="torchscript", opset=17)


def write_fused(folder: Path) -> None:
    """bert-ts17-eager as onnxruntime.transformers fuses it, with either of its attention operators."""
    for kind in ("attention", "mha"):
        options = FusionOptions("bert")
        options.use_multi_head_attention = kind == "mha"
        source = str(folder / "bert-ts17-eager.onnx")
        fused = optimize_model(
            source, "bert", num_heads=HEADS, hidden_size=HEADS * HEAD_DIM, opt_level=0, optimization_options=options
        )
        save(fused.model, folder / f"fused-{kind}.onnx")


def write_quantized(folder: Path) -> None:
    """bert-dynamo18-eager as onnxruntime.quantization makes it int8: dynamic operators, and QDQ."""
    source = onnx.load(folder / "bert-dynamo18-eager.onnx")
    del source.graph.value_info[:]  # torch.export gives weights a shape there, which onnxruntime then transposes
    rows: Any = Rows(classifier(FAMILIES["bert"], "eager", seed=0))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        quantization.quantize_dynamic(source, path)
        save(onnx.load(path), folder / "quantized-dynamic.onnx")
        quantization.quantize_static(source, path, rows, op_types_to_quantize=["MatMul", "Gemm"])
        save(onnx.load(path), folder / "quantized-qdq.onnx")


class Rows:
    """One batch of eight sentences."""

    def __init__(self, model: Any) -> None:
        self.batches: Iterator[Mapping[str, Array]] = iter([example_feeds(model, (8, 9))])

    def get_next(self) -> Any:
        return next(self.batches, None)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` without doc strings and metadata, which hold versions and paths."""
    strip(model)
    onnx.save(model, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests/fixtures")
