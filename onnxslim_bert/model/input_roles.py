"""Which input of a model takes token ids, which the mask, which the token types and which the positions.

The graph decides: ids are the row numbers of the word table, types those of a small one, a mask is an input whose
values at some tokens hide them from the others, and positions are one with which tokens can change places: the last two
are proven by running the model. Names count only where the graph leaves it open.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import BoundsError, DataError, ModelError
from onnxslim_bert.graph.functions import inlined
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.sessions import answers, open_session
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.embeddings import first_position
from onnxslim_bert.model.lookups import rows_read
from onnxslim_bert.model.role_names import FORMS, NAMES, ORDER, InputRole, Named, Role, Roles, role_of
from onnxslim_bert.model.role_probe import MOST_TYPES, Input, RoleProbe, Run

READY = f"give the model's inputs ready in an npz file, or say which takes what: --inputs {NAMES}"

_FOUND: dict[tuple[Any, ...], Roles | DataError] = {}  # by the state of the file; the error says why there are none


def roles_of(
    path: Path, named: Named | None = None, session: ort.InferenceSession | None = None, *, threads: int = 1
) -> Roles:
    """The role of every input of the model at `path`; found once for each file.

    named: the inputs that the user names, by role.
    session: a session on the model, if one is open; else one of `threads` is opened when a mask must be proven.
    Raises DataError when an input cannot be made from text, when the model takes two texts apart (two towers), or when
    neither graph nor names say which input takes what; ModelError for a file that is no model.
    """
    named = named or {}
    stat = path.stat() if path.is_file() else None
    key = (path.absolute(), stat and (stat.st_mtime_ns, stat.st_size), tuple(sorted(named.items())))
    if key not in _FOUND:
        graph = _graph(path)
        try:
            _FOUND[key] = graph_roles(graph, lambda: session or open_session(path, threads=threads), named)
        except DataError as error:
            _FOUND[key] = error
    found = _FOUND[key]
    if isinstance(found, DataError):
        raise DataError(str(found))
    return found


def graph_roles(graph: gs.Graph, opened: Callable[[], ort.InferenceSession], named: Named | None = None) -> Roles:
    """As `roles_of`, for a graph in memory; `opened` opens a session on it and is called when a mask must be proven."""
    inputs = {t.name: Input(np.dtype(t.dtype or np.int64), _axes(t)) for t in graph.inputs}
    held: list[ort.InferenceSession] = []

    def run(feeds: Mapping[str, Array]) -> list[Array] | None:
        try:
            held[:] = held or [opened()]
            return answers(held[0], feeds)
        except BoundsError:
            raise
        except Exception:  # onnxruntime's exceptions share no base class; what does not run proves nothing
            return None

    roles = find_roles(inputs, rows_read(graph), run, named or {})
    placed = {name: first_position(graph.tensors()[name]) for name, each in roles.items() if each.role == "positions"}
    return {**roles, **{name: InputRole("positions", first, max(first - 1, 0)) for name, first in placed.items()}}


def find_roles(inputs: Mapping[str, Input], rows: Mapping[str, int], run: Run, named: Named) -> Roles:
    """The role of every input, in the graph's order.

    rows: input name -> rows of the table that it looks up (`rows_read`). Raises DataError as `roles_of` does.
    """
    _check_named(inputs, named)
    roles: dict[str, InputRole] = {name: InputRole(role, int(role != "positions")) for role, name in named.items()}
    if "ids" not in named and (ids := _ids(inputs, rows, named)):
        roles[ids] = InputRole("ids")
    fed = next((name for name, found in roles.items() if found.role == "ids"), None)
    if fed is None or inputs[fed].dtype.kind not in "iu":
        found = {name: str(given.dtype) for name, given in inputs.items()}
        raise DataError(f"model inputs {found}: none takes integer token ids: {READY}")
    called = [name for name, given in inputs.items() if role_of(name) == "positions" and given.dtype.kind in "iu"]
    if called and called[0] not in roles and not _taken(roles, "positions"):
        roles[called[0]] = InputRole("positions", 0)
    for name in inputs:
        if name not in roles and 0 < rows.get(name, 0) <= MOST_TYPES and not _taken(roles, "types"):
            roles[name] = InputRole("types")
    probe = RoleProbe(inputs, rows, roles, fed, run)
    if not _taken(roles, "mask"):
        roles |= _mask(inputs, rows, roles, probe)
    elif "mask" in named:
        roles[named["mask"]] = probe.form(named["mask"]) or FORMS[0]
    for name, given in inputs.items():
        if name not in roles:
            role = _left(name, given, rows, roles, probe)
            roles[name] = InputRole(role, int(role != "positions"))
    return {name: roles[name] for name in inputs}


def _check_named(inputs: Mapping[str, Input], named: Named) -> None:
    for role, name in named.items():
        if name not in inputs:
            raise DataError(f"--inputs {role}={name}: the model has no such input: it has {', '.join(inputs)}")


def _taken(roles: Roles, role: Role) -> bool:
    return any(each.role == role for each in roles.values())


def _ids(inputs: Mapping[str, Input], rows: Mapping[str, int], named: Named) -> str | None:
    """The input that takes token ids; None when there is none."""
    read = {name: rows[name] for name in inputs if name in rows and name not in named.values()}
    read = {name: count for name, count in read.items() if role_of(name) != "positions"} or read
    large = [name for name, count in read.items() if count > MOST_TYPES]
    if len(large) == 1:
        return large[0]
    said = [name for name in large or inputs if role_of(name) == "ids" and name not in named.values()]
    if len(large) > 1 and len(said) != 1:
        tables = ", ".join(f"'{name}' ({read[name]} rows)" for name in large)
        if len({read[name] for name in large}) == 1:
            raise DataError(
                f"inputs {tables} read token ids alike: the model takes two texts apart (two towers): "
                "export one tower, or give both texts' inputs ready in an npz file"
            )
        raise DataError(f"inputs {tables} each read a table, and names do not say which takes token ids: {READY}")
    if said:
        return said[0]
    small = [name for name in read if role_of(name) is None]
    return max(small, key=lambda name: read[name]) if small else None


def _mask(inputs: Mapping[str, Input], rows: Mapping[str, int], roles: Roles, probe: RoleProbe) -> dict[str, InputRole]:
    """The mask among inputs that read no table: proven to hide tokens, else called so."""
    open_ = [name for name in inputs if name not in roles and name not in rows]
    proven = {name: form for name in open_ if (form := probe.form(name)) is not None}
    if len(proven) > 1:
        proven = {name: form for name, form in proven.items() if role_of(name) == "mask"}
    if len(proven) == 1:
        return proven
    called = [name for name in open_ if role_of(name) == "mask"]
    return {called[0]: FORMS[0]} if called else {}


def _left(name: str, given: Input, rows: Mapping[str, int], roles: Roles, probe: RoleProbe) -> Role:
    """The role of an input for which nothing is proven: the one in its name, or a free one where it changes nothing."""
    free: list[Role] = [role for role in ORDER if not _taken(roles, role)]
    said = role_of(name)
    is_int = given.dtype.kind in "iu"
    if is_int and name not in rows and (said in free or (free and said is None and probe.ignores(name))):
        asked: list[Role] = [role for role in free if role == said]
        return (asked or free)[0]
    if is_int and "positions" in free and probe.places(name):
        return "positions"
    raise DataError(f"model input '{name}' ({given.dtype}) cannot be made from text: {READY}")


def _axes(tensor: gs.Tensor) -> tuple[int | str, ...] | None:
    return None if tensor.shape is None else tuple(tensor.shape)


def _graph(path: Path) -> gs.Graph:
    proto, weights = read_skeleton(path)
    try:
        graph = gs.import_onnx(inlined(path, proto) if proto.functions else proto)
    except Exception as error:
        raise ModelError(f"{path}: the graph cannot be read ({in_words(error)})") from error
    tensors = graph.tensors()
    for name in weights.keys() & tensors.keys():
        tensors[name].values = weights[name]
    return graph
