"""A torch module as one clean, verified ONNX file, by either of PyTorch's exporters."""

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, OutputError, SlimError
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.sessions import open_session

if TYPE_CHECKING:
    import torch

Exporter = Literal["dynamo", "torchscript"]
Feeds = Mapping[str, Array]
Axes = Mapping[str, Mapping[int, str]]
"""The dynamic axes of every input and output: {"input_ids": {0: "batch", 1: "sequence"}, "logits": {0: "batch"}}."""

OPSETS: Mapping[Exporter, int] = {"dynamo": 18, "torchscript": 17}


def export_module(
    model: "torch.nn.Module",
    output: Path,
    traced: Feeds,
    checked: Sequence[Feeds],
    axes: Axes,
    *,
    exporter: Exporter = "dynamo",
    opset: int | None = None,
) -> Path:
    """Write `model` as one ONNX file to `output`, replacing what is there, without the exporter's doc strings.

    traced: the inputs that it is exported with, by the names of `forward`.
    checked: inputs of other sizes, on which ONNX Runtime must agree with torch.
    axes: every input and output in order; names that are not in `traced` are outputs.

    Raises ModelError when the exporter fails, writes another opset or more than one file holds, or when the file
    disagrees with torch; OutputError when the file cannot be written. Nothing is left behind then.
    """
    opset = opset or OPSETS[exporter]
    model = model.eval()
    with quiet():
        try:
            proto = run_exporter(model, traced, axes, exporter, opset)
        except SlimError:
            raise
        except Exception as error:  # the exporters raise whatever they meet
            reason = first_line(error.__cause__ or error)
            raise ModelError(f"{exporter} export at opset {opset} failed: {reason}") from error
    written = next(entry.version for entry in proto.opset_import if entry.domain == "")
    if written != opset:
        raise ModelError(f"the {exporter} exporter wrote opset {written} when asked for {opset}: ask for {written}")
    strip(proto)
    if proto.ByteSize() > onnx.checker.MAXIMUM_PROTOBUF:
        raise ModelError(f"{output.name}: {proto.ByteSize() / 1e9:.1f} GB, and one ONNX file holds 2 GB")

    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        onnx.save(proto, temporary)
        check_agreement(model, temporary, checked)
        os.replace(temporary, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return output


def run_exporter(model: Any, traced: Feeds, axes: Axes, exporter: Exporter, opset: int) -> onnx.ModelProto:
    """What torch.onnx.export makes of `model`, parameters under their own names."""
    torch = require("torch")
    feeds = {name: torch.from_numpy(values) for name, values in traced.items()}
    outputs = [name for name in axes if name not in feeds]
    options = {"opset_version": opset, "input_names": list(feeds), "output_names": outputs}
    with torch.no_grad():
        if exporter == "torchscript":
            file = io.BytesIO()
            with positional(model, list(feeds)):
                torch.onnx.export(model, tuple(feeds.values()), file, dynamo=False, dynamic_axes=axes, **options)
            return onnx.load_from_string(file.getvalue())
        require("onnxscript")
        dims = {name: torch.export.Dim(name) for named in axes.values() for name in named.values()}
        shapes = {name: {axis: dims[dim] for axis, dim in axes[name].items()} for name in feeds}
        options |= {"kwargs": feeds, "dynamic_shapes": shapes, "verbose": False}
        program = torch.onnx.export(model, (), dynamo=True, **options)
        proto: onnx.ModelProto = program.model_proto
        return proto


@contextlib.contextmanager
def positional(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Let `forward` take the inputs `names` by position, and nothing else.

    TorchScript passes all the arguments of `forward` by position, defaults included: transformers takes some by name
    only, and a default that is a number would become an input of the graph.
    """
    forward = model.forward
    model.forward = lambda *values: forward(**dict(zip(names, values, strict=True)))
    try:
        yield
    finally:
        del model.forward


def strip(message: Any) -> None:
    """Clear doc strings and metadata of a protobuf message at every level.

    torch.export notes the Python stack of every node there, the paths of the machine included.
    """
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                strip(part)


def check_agreement(model: Any, path: Path, checked: Sequence[Feeds]) -> None:
    """ModelError unless ONNX Runtime and torch agree to 1e-4 of each output's largest value (1 at least)."""
    torch = require("torch")
    try:
        session = open_session(path)
        answers: list[list[Any]] = [[*session.run(None, dict(feeds))] for feeds in checked]
    except Exception as error:  # onnxruntime has no common base for its errors
        raise ModelError(f"ONNX Runtime cannot run the export: {in_words(error)}") from error
    names = [output.name for output in session.get_outputs()]
    for feeds, found in zip(checked, answers, strict=True):
        shape = next(iter(feeds.values())).shape
        with torch.no_grad():
            answer = model(**{name: torch.from_numpy(values) for name, values in feeds.items()})
        wanted = [answer] if isinstance(answer, torch.Tensor) else list(answer.values())
        if len(names) != len(wanted):
            raise ModelError(f"the export has {len(names)} outputs ({', '.join(names)}), the model {len(wanted)}")
        for name, ours, theirs in zip(names, found, wanted, strict=True):
            if not agree(ours, theirs.numpy()):
                raise ModelError(f"the export differs from torch in {name!r} on inputs of shape {shape}: not written")


def agree(found: Array, want: Array) -> bool:
    """Same shape, and no difference above 1e-4 of the largest wanted value (1 at least)."""
    return found.shape == want.shape and np.allclose(found, want, rtol=0, atol=1e-4 * max(1, np.abs(want).max()))


def require(module: str) -> Any:
    """The imported `module`, or a SlimError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SlimError(f"export needs {module}: pip install 'onnxslim-bert[export]'") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines or prints, which torch and transformers make in plenty."""
    disabled = logging.root.manager.disable
    sys.stdout.flush()
    stdout, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        logging.disable(logging.ERROR)
        os.dup2(null, 1)  # the TorchScript exporter dumps the graph it failed on from C++, past sys.stdout
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)
        logging.disable(disabled)


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
