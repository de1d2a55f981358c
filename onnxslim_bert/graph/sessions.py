"""ONNX Runtime sessions with the settings that every measurement states."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import BoundsError, ModelError
from onnxslim_bert.graph.bounds import A_LOADED_NODE, TIMES, load_within, run_within
from onnxslim_bert.graph.files import model_bytes, model_nodes
from onnxslim_bert.graph.native_path import native_path
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.signature import DTYPES, in_declared_rank
from onnxslim_bert.graph.survival import check_survives
from onnxslim_bert.memory import check_threads, give_back, thread_bytes

CPU, ORT_FORMAT = ["CPUExecutionProvider"], ".ort"
LARGE = 1 << 25  # bytes of a model from which memory that earlier sessions have left is given back first
_SIZES: WeakKeyDictionary[ort.InferenceSession, int] = WeakKeyDictionary()  # bytes of the models of CPU sessions
_Answer = Callable[[ort.InferenceSession, Mapping[str, Array]], Iterable[Array]]
ort.set_default_logger_severity(4)  # what it says while it reads a file would stand beside what we say


def open_session(path: Path, *, threads: int = 1, optimize: bool = True) -> ort.InferenceSession:
    """A CPU session on the file at `path`. Raises ModelError when ONNX Runtime refuses it."""
    options = session_options(threads)
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return load(path, options)


def load(
    model: Path | bytes,
    options: ort.SessionOptions,
    providers: Sequence[str] | None = CPU,
    *,
    bounded: bool | None = None,
    external: int = 0,
    nodes: int = 0,
) -> ort.InferenceSession:
    """A session on a file, or on the bytes of a model.

    providers: None where `options` name them. bounded: whether its load, and later its runs (`answers`), are held to
    the memory and time that its size explains; the CPU's are, other providers compile. external: bytes of weights that
    lie in neither. nodes: of a model given as bytes; those of a file are counted. Raises ModelError when ONNX Runtime
    refuses the model, BoundsError when it takes too much.
    """
    given = model if isinstance(model, bytes) else native_path(model)
    bounded = providers is CPU if bounded is None else bounded
    nbytes = external + (len(model) if isinstance(model, bytes) else checked_bytes(model))
    nodes = nodes if isinstance(model, bytes) or model.suffix == ORT_FORMAT else model_nodes(model)
    check_threads(options.intra_op_num_threads)  # ONNX Runtime waits for ever for those that it does not get
    if nbytes > LARGE:
        give_back()
    taken = nbytes + thread_bytes(options.intra_op_num_threads) / TIMES
    try:
        where = "the model" if isinstance(model, bytes) else str(model)
        with load_within(taken, nodes * A_LOADED_NODE, where) if bounded else contextlib.nullcontext():
            session = ort.InferenceSession(given, options, providers=providers, enable_fallback=0)  # which prints
    except BoundsError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        raise cannot_load(model, error) from error
    if bounded:
        _SIZES[session] = nbytes
    return session


def checked_bytes(path: Path) -> int:
    """Bytes of a model's file with its external data; one in ORT format is taken as it is.

    Raises ModelError for a file that fails the check of `boundary.py`, and for one that ends ONNX Runtime
    (`survival.py`): this process opens nothing unchecked.
    """
    nbytes = path.stat().st_size if path.suffix == ORT_FORMAT else model_bytes(path)
    check_survives(path, nbytes)
    return nbytes


def cannot_load(model: Path | bytes, error: Exception) -> ModelError:
    """The error that says which model ONNX Runtime refused with `error`."""
    where, what = ("", "the model") if isinstance(model, bytes) else (f"{model}: ", "it")
    return ModelError(f"{where}ONNX Runtime cannot load {what} ({in_words(error)})")


def run(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    """Every output for one batch, in the graph's order.

    Integers are cast to the width that the model takes: after the pass `int32-inputs` it takes int32 where feeds are
    int64. Raises ModelError when the model does not run on them.
    """
    return [*_said(session, feeds, answers)]


def run_in_turn(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Every output for one batch with its name, as `run`: one is copied out of ONNX Runtime, which lets it go, a time.

    Where each is used and left before the next, what they take is there once, and not twice.
    """
    return zip([output.name for output in session.get_outputs()], _said(session, feeds, _in_turn), strict=True)


def _said(session: ort.InferenceSession, feeds: Mapping[str, Array], answer: _Answer) -> Iterable[Array]:
    """What `answer` gives for `feeds` in the widths of the session's inputs; ModelError where it raises."""
    widths = {taken.name: DTYPES.get(taken.type) for taken in session.get_inputs()}
    given = {name: _as_wide(values, widths.get(name)) for name, values in feeds.items()}
    try:
        return answer(session, given)
    except BoundsError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        shapes = ", ".join(f"{name} {list(feed.shape)}" for name, feed in feeds.items())
        raise ModelError(f"the model does not run on {shapes} ({in_words(error)})") from error


def answers(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    """Every output for one batch, as ONNX Runtime gives it; what it raises stays as it is.

    A model of multiple choice takes rows [rows, tokens] as the choices that it declares, and answers for each row.
    Raises BoundsError when a CPU session that `load` opened takes more memory or time than its model explains.
    """
    nbytes = _SIZES.get(session)
    given = in_declared_rank(session, feeds)
    outputs = session.run(None, given) if nbytes is None else run_within(session, None, given, nbytes)
    lead = _lead(given, feeds)
    return [_by_row(np.asarray(output), lead) for output in outputs]


def _in_turn(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> Iterator[Array]:
    """As `answers`, of a CPU session that `load` opened, each copied when it is asked for."""
    given = in_declared_rank(session, feeds)
    held = run_within(session, None, given, _SIZES[session], held=True)[::-1]
    lead = _lead(given, feeds)
    return (_by_row(held.pop().numpy(), lead) for _ in range(len(held)))


def _lead(given: Mapping[str, Array], feeds: Mapping[str, Array]) -> tuple[int, ...] | None:
    """Of rows that were given as choices: batch, choices, rows; None for others."""
    return next(((*v.shape[:2], len(feeds[name])) for name, v in given.items() if v.ndim > feeds[name].ndim), None)


def _by_row(output: Array, lead: tuple[int, ...] | None) -> Array:
    """An output [batch, choices, ...] as [rows, ...], or as [rows, 1] where that is all. lead: batch, choices, rows."""
    if lead is None or output.shape[:2] != lead[:2]:
        return output
    return output.reshape(lead[2], *(output.shape[2:] or (1,)))


def _as_wide(values: Array, taken: np.dtype[Any] | None) -> Array:
    is_integer = taken is not None and taken.kind == values.dtype.kind == "i"
    return values.astype(taken, copy=False) if is_integer else values


def session_options(threads: int = 1, spinning: bool = False) -> ort.SessionOptions:
    """Options of every session here: as many threads as asked for, which wait without spinning unless asked to."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    # dense layers between Q and DQ become MatMulNBits on some CPUs, whose int8 form rounds activations once more
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return options
