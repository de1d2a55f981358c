"""onnxruntime's own fusion and quantizers, each given its best chance.

    python peers.py NAME JOB

NAME: a key of PEERS. JOB: a `Job` as JSON. The fused ones need sympy, those with static ranges
torch, those of four bits onnx_ir.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnxruntime import quantization
from onnxruntime.quantization import QuantFormat, QuantType

from onnxslim_bert.calibration.batches import Batch, Batches
from onnxslim_bert.calibration.feeding import roles_for
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.graph.signature import fed_inputs
from onnxslim_bert.job.data import Sources

# Operators with weights: with Gather and EmbedLayerNormalization the embeddings become int8 as well.
WEIGHTED = ("MatMul", "Gemm", "Attention", "Gather", "EmbedLayerNormalization")
MATRICES = ("MatMul", "Gemm", "Attention")
BLOCK, INT8 = 32, 4  # weights that share a scale, and the accuracy level that multiplies in int8


@dataclass(frozen=True)
class Job:
    """What a peer is given.

    source: from `without_types`. heads, hidden: of the encoder. The rest is what `onnxslim quantize` calibrates on.
    """

    source: str
    output: str
    heads: int
    hidden: int
    data: str
    rows: int
    seed: int
    tokenizer: str
    max_length: int


Quantize = Callable[[Path, Job], None]  # reads the path instead of the job's source, which it may be a fused form of


@dataclass(frozen=True)
class Peer:
    """fused: onnxruntime.transformers goes first. quantize: None leaves the model in float."""

    fused: bool
    quantize: Quantize | None


def main(name: str, job: Job) -> None:
    """Write what the peer makes of the job's source."""
    peer = PEERS[name]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(job.source)
        if peer.fused:
            fused = Path(scratch) / "fused.onnx" if peer.quantize else Path(job.output)
            fuse(source, fused, job)
            source = fused
        if peer.quantize:
            peer.quantize(source, job)


def without_types(source: Path, copy: Path) -> Path:
    """A copy without the types of inner tensors, in one file.

    torch.export gives types to weights as well, which onnxruntime.quantization transposes and then finds at odds with
    them; it infers the types that it needs. It also writes beside its input, which a copy keeps clean.
    """
    model = onnx.load(source)
    del model.graph.value_info[:]
    onnx.save(model, copy)
    return copy


def fuse(source: Path, output: Path, job: Job) -> None:
    """onnxruntime.transformers, told the sizes that it fails to detect in today's exports."""
    from onnxruntime.transformers.optimizer import optimize_model  # here: 40 MB that the other peers do not need

    model = optimize_model(str(source), "bert", num_heads=job.heads, hidden_size=job.hidden)
    model.save_model_to_file(str(output))


def dynamic(source: Path, job: Job) -> None:
    """Activations quantized at run time. The default type stands in for those that fused operators hide."""
    quantization.quantize_dynamic(
        source,
        job.output,
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def static_matmul(source: Path, job: Job) -> None:
    """Inputs and outputs of the operators with weights, and of the products of attention."""
    static(source, job, op_types_to_quantize=list(WEIGHTED))


def static_all(source: Path, job: Job) -> None:
    """All operators that the quantizer knows."""
    static(source, job)


def static_float(source: Path, job: Job) -> None:
    """Inputs of the operators with weights only: their outputs and attention stay float. The most faithful one."""
    graph = onnx.load(source).graph
    weights = {tensor.name for tensor in graph.initializer}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] not in weights]
    static(
        source,
        job,
        op_types_to_quantize=list(WEIGHTED),
        nodes_to_exclude=products,
        extra_options={"OpTypesToExcludeOutputQuantization": list(MATRICES)},
    )


def static(source: Path, job: Job, **options: Any) -> None:
    """Min-max ranges of the same rows as ours, one by one so that none is padded."""
    rows: Any = Rows(calibration(source, job))
    quantization.quantize_static(
        typed(source),
        job.output,
        rows,
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        **options,
    )


def four_bits(source: Path, job: Job) -> None:
    """Matrices to the nearest of 16 levels, in blocks of 32 with zeros (MatMulNBits)."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig  # which needs onnx_ir

    nearest = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=False, accuracy_level=INT8)
    write_four_bits(source, job, nearest)


def four_bits_hqq(source: Path, job: Job) -> None:
    """The same with scales and zeros by HQQ (Badri and Shaji 2023), which needs torch."""
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig

    write_four_bits(source, job, HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4))


def write_four_bits(source: Path, job: Job, algorithm: Any) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        str(source), block_size=BLOCK, is_symmetric=False, accuracy_level=INT8, algo_config=algorithm
    )
    quantizer.process()
    made: Any = quantizer.model  # an ONNXModel, which its annotation leaves open
    made.save_model_to_file(job.output)


def typed(source: Path) -> Path:
    """`source`; if it is fused then with the types, which static needs and ONNX cannot infer behind fused operators."""
    # Not from onnxruntime.tools, which imports torch where there is one: 230 MB.
    from onnxruntime.transformers.shape_infer_helper import SymbolicShapeInferenceHelper

    model = onnx.load(source)
    if all(node.domain in ("", "ai.onnx") for node in model.graph.node):
        return source
    model = SymbolicShapeInferenceHelper.infer_shapes(model, auto_merge=True)
    path = source.with_name("typed.onnx")
    onnx.save(model, path)
    return path


def calibration(source: Path, job: Job) -> Batches:
    """The rows on which `onnxslim quantize` calibrates, in batches of one."""
    sources = Sources(calibration=job.data, rows=job.rows, tokenizer=Path(job.tokenizer))
    rows, _ = sources.load(job.seed)
    assert rows is not None
    inputs = fed_inputs(onnx.load(source, load_external_data=False).graph)
    types = {value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) for value in inputs}
    tokenizer = sources.tokenizer_for(source, rows)
    roles = roles_for(source, rows, tokenizer)
    return Batches(rows, types, roles, Working(job.max_length, tokenizer=tokenizer), batch_size=1)


class Rows:
    """Batches as onnxruntime.quantization asks for them."""

    def __init__(self, batches: Batches) -> None:
        self._batches = iter(batches)

    def get_next(self) -> Any:
        """The next batch's feeds, None after the last."""
        batch: Batch | None = next(self._batches, None)
        return batch and batch.feeds


METHODS: dict[str, Quantize] = {
    "dynamic": dynamic,
    "static-matmul": static_matmul,
    "static-all": static_all,
    "static-float": static_float,
}
PEERS: dict[str, Peer] = {
    "ort-fused": Peer(True, None),
    **{f"ort-{name}": Peer(False, method) for name, method in METHODS.items()},
    **{f"ort-fused-{name}": Peer(True, method) for name, method in METHODS.items()},
    "ort-4-bit": Peer(False, four_bits),
    "ort-4-bit-hqq": Peer(False, four_bits_hqq),
}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main(sys.argv[1], Job(**json.loads(sys.argv[2])))
