"""Weights stored in fewer bits than they are computed with: a Cast widens them, and a Sub and a Mul scale them.

Other quantizers write int8 weights so where they avoid DequantizeLinear, and converters to float16 leave a Cast to
float32 behind; `pack-weights` stores int8 in fewer bits. Folding constants unfolds such weights to their full width.
"""

from dataclasses import dataclass

import onnx
import onnx_graphsurgeon as gs

from onnxslim_bert.graph.probe import constant, producer

WORTH = 1024  # elements
ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div"))
VIEWS = frozenset(("Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze"))


@dataclass(frozen=True)
class Narrow:
    """A weight that is stored in fewer bits than it is computed with.

    name: of the tensor that its readers read, which is the constant's name once it is folded. dtype: as it is stored.
    nbytes: as it is stored, with its scales and zero points. wide: bytes once it is folded.
    """

    name: str
    dtype: str
    nbytes: int
    wide: int


def narrow_weights(graph: gs.Graph) -> tuple[Narrow, ...]:
    """The narrow weights of a graph whose constants are not folded yet."""
    read = {"Cast": _narrow, "QuantizeLinear": _packed}
    nodes = [node for node in graph.nodes if node.op in read and node.outputs]
    return tuple(narrow for node in nodes if (narrow := read[node.op](node)) is not None)


def _packed(quantize: gs.Node) -> Narrow | None:
    """The int8 matrix that `quantize` makes of levels, which Concat and shifts take apart, as `PackedWeight` writes."""
    zeros, block = constant(quantize.inputs[-1]), quantize.attrs.get("block_size", 0)
    made = _from_constants(quantize)
    if zeros is None or zeros.ndim != 2 or not block or made is None:
        return None
    tensor, rows = quantize.outputs[0], len(zeros) * block
    name = integers_of(tensor)
    while len(tensor.outputs) == 1 and tensor.outputs[0].op in ("Slice", "Transpose"):
        (reader,) = tensor.outputs
        end = constant(reader.inputs[2]) if reader.op == "Slice" else None
        rows = rows if end is None else int(end[0])
        tensor = reader.outputs[0]
        name = tensor.name
    bits = sum(8 // len(node.inputs) for node in made if node.op == "Concat")
    stored = {id(x): values.nbytes for node in made for x in node.inputs if (values := constant(x)) is not None}
    return Narrow(name, f"int8 in {bits} bits", sum(stored.values()), rows * zeros.shape[1])


def integers_of(result: gs.Tensor) -> str:
    """The name of the constant that stands for the `result` of a QuantizeLinear of constants, once it is folded."""
    return f"{result.name}/int8"


def _from_constants(node: gs.Node) -> list[gs.Node] | None:
    """`node` and all that it is computed by, where that reads constants alone."""
    found, front = [node], [node]
    while front:
        for tensor in front.pop().inputs:
            above = producer(tensor)
            if above is None and constant(tensor) is None:
                return None
            if above is not None and not any(above is one for one in found):
                found.append(above)
                front.append(above)
    return found


def _narrow(cast: gs.Node) -> Narrow | None:
    values = constant(cast.inputs[0])
    wide = onnx.helper.tensor_dtype_to_np_dtype(cast.attrs["to"])
    if values is None or values.size < WORTH or values.dtype.itemsize >= wide.itemsize:
        return None
    tensor, nbytes = cast.outputs[0], values.nbytes
    while len(tensor.outputs) == 1:
        (reader,) = tensor.outputs
        others = [_stored(other) for other in reader.inputs if other is not tensor]
        if reader.op not in ELEMENTWISE | VIEWS or any(size is None for size in others):
            break
        nbytes += sum(size or 0 for size in others) if reader.op in ELEMENTWISE else 0
        tensor = reader.outputs[0]
    readers = [node for reader in tensor.outputs for node in (reader, *_behind_cast(reader))]
    if any(node.op == "QuantizeLinear" for node in readers):
        return None  # a scale of integers that are stored in fewer bits (`pack-weights`): nothing reads them wider
    return Narrow(tensor.name, str(values.dtype), nbytes, values.size * wide.itemsize)


def _behind_cast(node: gs.Node) -> list[gs.Node]:
    return list(node.outputs[0].outputs) if node.op == "Cast" else []


def _stored(tensor: gs.Tensor) -> int | None:
    """Bytes of a constant, or of the one that a Cast makes `tensor` of; None where it is neither."""
    values, above = constant(tensor), producer(tensor)
    if values is None and above is not None and above.op == "Cast":
        values = constant(above.inputs[0])
    return None if values is None else int(values.nbytes)
