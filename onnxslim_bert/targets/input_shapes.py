"""The shapes of a file's inputs, and which of their dimensions are open."""

from pathlib import Path

from onnxslim_bert.errors import ModelError
from onnxslim_bert.graph.signature import fed_inputs
from onnxslim_bert.graph.wire import read_skeleton


def open_input(path: Path) -> str:
    """The first input with an open dimension and its shape, in words; "" when all are fixed."""
    for value in fed_inputs(read_skeleton(path)[0].graph):
        shape = [dim.dim_value or dim.dim_param or "?" for dim in value.type.tensor_type.shape.dim]
        if not all(isinstance(size, int) for size in shape):
            return f"{value.name} is [{', '.join(map(str, shape))}]"
    return ""


def free_dimensions(path: Path, shape: tuple[int, int]) -> dict[str, int]:
    """The open dimensions of the inputs [batch, tokens, ...] by name, with the sizes of `shape`.

    Raises ModelError for an open dimension that has no name, or one name for both.
    """
    sizes: dict[str, int] = {}
    for value in fed_inputs(read_skeleton(path)[0].graph):
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            if dim.dim_value:
                continue
            if not dim.dim_param or sizes.setdefault(dim.dim_param, size) != size:
                raise ModelError(
                    f"{path}: {value.name} has no dimension of its own name for {size}: fix its shapes first"
                )
    return sizes
