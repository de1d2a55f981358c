"""Strict sessions on one target: every node runs there, or an error names those that do not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import onnxruntime as ort

from onnxslim_bert.errors import ProviderError
from onnxslim_bert.graph.native_path import native_path
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.sessions import cannot_load, checked_bytes, load, session_options
from onnxslim_bert.native_output import native_output
from onnxslim_bert.targets.arm64.session import EmulatedSession
from onnxslim_bert.targets.assignment import RECORD, placement_of
from onnxslim_bert.targets.input_shapes import free_dimensions, open_input
from onnxslim_bert.targets.placement import Left, Placement
from onnxslim_bert.targets.setup import CPU_PROVIDER, NO_OPTIONS, Setup, attach
from onnxslim_bert.targets.target import Target

STRICT = "session.disable_cpu_ep_fallback"
LEFT_SOME = "fallback to CPU EP has been explicitly disabled"  # how ONNX Runtime refuses a strict session
NO_MODEL = ("NoSuchFile", "InvalidProtobuf", "InvalidGraph")  # its exceptions that no provider is to blame for
NAMED = 3  # operators of which an error names a node
LONGEST = 160  # letters of a reason in it
QUIET, VERBOSE = 4, 0


class Placed(NamedTuple):
    """A session and where its nodes run."""

    session: ort.InferenceSession
    placement: Placement


@dataclass(frozen=True)
class _Asked:
    """What a session is opened with."""

    target: Target
    path: Path
    setup: Setup
    shape: tuple[int, int] | None
    threads: int = 1
    spinning: bool = False
    strict: bool = False
    severity: int = QUIET


class _LeftSomeError(ProviderError):
    """ONNX Runtime refuses a strict session, without naming a node."""


def open_on(
    target: Target,
    path: Path,
    *,
    threads: int = 1,
    spinning: bool = False,
    allow_fallback: bool = False,
    options: Mapping[str, str] = NO_OPTIONS,
    shape: tuple[int, int] | None = None,
) -> Placed:
    """A session on the file at `path` whose nodes all run on `target`.

    allow_fallback: accept nodes that the provider leaves to the CPU; the placement counts them and says why.
    options: the provider's own. shape: (batch, tokens) in place of the open dimensions of the inputs.
    Raises ProviderError when the target cannot execute here, refuses the model or an option, or leaves nodes without
    `allow_fallback`: it names them with the provider's reason. Raises ModelError for a file that is no model.
    """
    asked = _Asked(target, path, target.setup(options, threads), shape, threads, spinning, strict=not allow_fallback)
    if target.fixed_shapes and not (allow_fallback or shape) and (found := open_input(path)):
        raise ProviderError(f"{path}: {target.name} takes fixed shapes only, and {found}: fix them with --seq")
    try:
        with native_output():  # stdout may have been promised to one JSON document
            session = _open(asked)
        placement = placement_of(session, target.provider)
    except _LeftSomeError as error:
        raise ProviderError(_refusal(asked, _explained(asked))) from error
    if placement.left:
        placement = _explained(asked)
    if placement.left and not allow_fallback:
        raise ProviderError(_refusal(asked, placement))
    return Placed(session, placement)


def explain_on(target: Target, path: Path, *, shape: tuple[int, int] | None = None) -> Placement:
    """Where each node runs, and why the others do not as far as the provider's verbose log says.

    Raises ProviderError when the target cannot execute here or refuses the model.
    """
    return _explained(_Asked(target, path, target.setup(NO_OPTIONS, 1), shape))


def _explained(asked: _Asked) -> Placement:
    with native_output() as log:
        session = _open(replace(asked, strict=False, severity=VERBOSE))
    return placement_of(session, asked.target.provider, *asked.target.reasons(log.text))


def _open(asked: _Asked) -> ort.InferenceSession:
    target, path = asked.target, asked.path
    if asked.setup.start:
        checked_bytes(path)
        return cast("ort.InferenceSession", EmulatedSession(path, asked.setup.start, asked.threads))
    options = session_options(asked.threads, asked.spinning)
    options.log_severity_level = asked.severity
    options.add_session_config_entry(RECORD, "1")
    for name, size in (free_dimensions(path, asked.shape) if asked.shape else {}).items():
        options.add_free_dimension_override_by_name(name, size)
    if target.provider != CPU_PROVIDER:
        options.add_session_config_entry(STRICT, str(int(asked.strict)))
    attach(options, asked.setup)
    if target.provider == CPU_PROVIDER:
        return load(path, options, providers=None, bounded=True)
    checked_bytes(path)
    try:
        session = ort.InferenceSession(native_path(path), options, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no public base
        if LEFT_SOME in str(error):
            raise _LeftSomeError(in_words(error)) from error
        if type(error).__name__ in NO_MODEL:
            raise cannot_load(path, error) from error
        raise ProviderError(f"{path}: {target.name} cannot open it ({in_words(error)})") from error
    session.disable_fallback()
    return session


def _refusal(asked: _Asked, placement: Placement) -> str:
    left = placement.left
    ops: dict[str, list[Left]] = {}
    for node in left:
        ops.setdefault(node.op, []).append(node)
    most = sorted(ops.values(), key=len, reverse=True)[:NAMED]
    named = "; ".join(f"{len(nodes)} {nodes[0].op} ({nodes[0].node}: {_short(nodes[0].reason)})" for nodes in most)
    more = f"; and {len(left) - sum(map(len, most))} more" if len(ops) > NAMED else ""
    return (
        f"{asked.path}: {asked.target.name} leaves {len(left)} of {placement.total} nodes to the CPU: {named}{more} "
        "(--allow-fallback accepts that)"
    )


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
