"""Which input of a model takes token ids, which the mask, which the token types and which the positions.

The graph decides: ids are the row numbers of the word table, types those of a small one, a mask is an input whose
values at some tokens hide them from the others, and positions are one with which tokens can change places: the last two
are proven by running the model. Names count only where the graph leaves it open.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import BoundsError, DataError, ModelError, one_line
from onnxslim_bert.graph.functions import inlined
from onnxslim_bert.graph.sessions import answers, open_session
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.embeddings import first_position
from onnxslim_bert.model.lookups import rows_read
from onnxslim_bert.model.role_names import FORMS, NAMES, ORDER, InputRole, Named, Role, Roles, role_of

MOST_TYPES = 16  # rows of a table of token types, at most
PROBE_LENGTH = 8  # tokens of a probe, where the graph leaves the length open
HIDDEN = 0.2  # share of what seen tokens change that hidden ones may: dynamic int8 rounds all tokens by one scale
EXACT = 1e-3  # the same, where a name says what the mask is and the two texts cannot share their scale
READY = f"give the model's inputs ready in an npz file, or say which takes what: --inputs {NAMES}"


Run = Callable[[Mapping[str, Array]], list[Array] | None]  # a model's outputs; None where it does not run


class Input(NamedTuple):
    """One input, as the graph declares it. shape: sizes, or names of open axes; None when it declares none."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...] | None


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
    probe = _Probe(inputs, rows, roles, fed, run)
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


def _mask(inputs: Mapping[str, Input], rows: Mapping[str, int], roles: Roles, probe: "_Probe") -> dict[str, InputRole]:
    """The mask among inputs that read no table: proven to hide tokens, else called so."""
    open_ = [name for name in inputs if name not in roles and name not in rows]
    proven = {name: form for name in open_ if (form := probe.form(name)) is not None}
    if len(proven) > 1:
        proven = {name: form for name, form in proven.items() if role_of(name) == "mask"}
    if len(proven) == 1:
        return proven
    called = [name for name in open_ if role_of(name) == "mask"]
    return {called[0]: FORMS[0]} if called else {}


def _left(name: str, given: Input, rows: Mapping[str, int], roles: Roles, probe: "_Probe") -> Role:
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


class _Probe:
    """Runs the model on two texts that differ in their last tokens only: a mask that hides these keeps the answers.

    Both texts are rows of one batch where the graph allows it: int8 with ranges from run time then rounds both alike.
    """

    def __init__(self, inputs: Mapping[str, Input], rows: Mapping[str, int], roles: Roles, ids: str, run: Run) -> None:
        fixed = fixed_axes(flat_shape(given.shape, given.dtype) for given in inputs.values() if given.shape is not None)
        self._inputs, self._roles, self._run = inputs, roles, run
        batch, length = fixed[0] or 2, fixed[1] or PROBE_LENGTH
        self._shape, self._together = (batch, length), batch > 1
        self._real = np.arange(length) < max(1, length - max(1, length // 3))
        most = max(4, min(rows.get(ids, MOST_TYPES), 1000))
        low = 4 if most >= 2 * MOST_TYPES else 1
        middle = (low + most) // 2
        rng = np.random.default_rng(0)
        shared, one, other = (rng.integers(*ends, length) for ends in ((low, most), (low, middle), (middle, most)))
        self._texts = [np.where(self._real, shared, hidden) for hidden in (one, other)]
        self._other = np.where(self._real, other, one)

    def form(self, name: str) -> InputRole | None:
        """How the mask `name` is written: what hides tokens best; None when no values are proven to hide them.

        What hides the real tokens, too, is no way to write it. Where hidden tokens still have a small part in the
        answers (int8 rounds all by one scale, a pooling reads padding), that part must also be far below the one that
        they have when the same values say the opposite.
        """
        forms = FORMS if self._inputs[name].dtype.kind == "f" else FORMS[:2]
        changes = {form: self._change(name, form) for form in forms if self._reads(name, form)}
        moved = [self._change(name, InputRole("mask", value, value)) for value in (1, 0)]
        ran = {form: change for form, change in changes.items() if change is not None}
        most = max([change for change in [*moved, *ran.values()] if change is not None], default=0.0)
        best = min(ran, key=lambda form: ran[form], default=None)
        if best is None or not most:
            return None
        if ran[best] > EXACT * most:
            opposite = self._change(name, InputRole("mask", best.padding, best.real)) or 0.0
            allowed = HIDDEN if self._together or role_of(name) != "mask" else EXACT
            return best if ran[best] <= allowed * min(most, opposite) else None
        return best

    def ignores(self, name: str) -> bool:
        """Whether the answers are the same whatever `name` holds."""
        answers = [self._answers(name, form) for form in (FORMS[0], FORMS[1])]
        return all(each is not None for each in answers) and all(
            _apart(*pair) == 0 for pair in zip(answers[0] or [], answers[1] or [], strict=True)
        )

    def places(self, name: str) -> bool:
        """Whether `name` holds the positions of tokens, and nothing else does: tokens that change places with their
        positions change places in the answers, and those that leave them behind change the answers."""
        length = self._shape[1]
        order = np.r_[0, length - 1 : 0 : -1]  # the first token stays: a classifier reads it
        here, there = np.arange(length), order
        runs = [
            self._run(self._feeds(text) | {name: self._filled(name, places)})
            for text, places in ((self._texts[0], here), (self._texts[0][order], there), (self._texts[0][order], here))
        ]
        if any(run is None for run in runs):
            return False
        first, moved, left = ([x for x in run or [] if _is_vector(x)] for run in runs)
        expected = [x[:, order] if x.shape[:2] == self._shape else x for x in first]
        return _apart(expected, moved) <= EXACT < _apart(expected, left)

    def _change(self, name: str, form: InputRole) -> float | None:
        """How far the answers of real tokens move when the others' ids change; None where the model does not run."""
        answers = self._answers(name, form)
        return None if answers is None else _apart(*answers)

    def _reads(self, name: str, form: InputRole) -> bool:
        """Whether the answers of real tokens move with these tokens' ids."""
        answers = self._answers(name, form, [self._texts[0], self._other])
        return answers is not None and _apart(*answers) > 0

    def _answers(self, name: str, form: InputRole, texts: list[Array] | None = None) -> list[list[Array]] | None:
        """The outputs for the first text and for the second; None where the model does not run."""
        texts = texts or self._texts
        if not self._together:
            runs = [self._outputs(text[None], name, form) for text in texts]
            return None if runs[0] is None or runs[1] is None else [runs[0], runs[1]]
        ids = np.stack(texts)[np.arange(self._shape[0]) % 2]
        outputs = self._outputs(ids, name, form)
        return None if outputs is None else [[_of_row(each, row, *self._shape) for each in outputs] for row in (0, 1)]

    def _outputs(self, ids: Array, name: str, form: InputRole) -> list[Array] | None:
        filled = self._filled(name, np.where(self._real, form.real, form.padding))
        outputs = self._run(self._feeds(ids) | {name: filled})
        return None if outputs is None else [self._of_real(each) for each in outputs if _is_vector(each)]

    def _feeds(self, ids: Array) -> dict[str, Array]:
        """Rows of tokens `ids` [seq] or [batch, seq], none of which is hidden."""
        feeds = {other: np.ones(self._shape).astype(given.dtype) for other, given in self._inputs.items()}
        real = np.ones(self._shape, bool)
        for name, each in self._roles.items():
            made = {"ids": ids, "types": np.zeros(self._shape)}
            feeds[name] = self._filled(name, made.get(each.role, each.written(real)))
        return feeds

    def _filled(self, name: str, values: Array) -> Array:
        """`values` for each row of the batch, in the type of the input `name`."""
        return np.broadcast_to(values, self._shape).astype(self._inputs[name].dtype)

    def _of_real(self, output: Array) -> Array:
        """The part of `output` that is about real tokens, where it holds an answer for each token; else all of it."""
        return output[:, self._real] if output.ndim > 1 and output.shape[1] == self._shape[1] else output


def _of_row(output: Array, row: int, batch: int, length: int) -> Array:
    """What `output` says of a row of the batch, whose axis comes first, or second behind one of `length` tokens."""
    if output.ndim > 1 and output.shape[:2] == (length, batch) != (batch, length):
        return output[:, row]
    each = output.shape[0] // batch  # several, where the tokens of all rows stand in one axis
    return output[row * each : (row + 1) * each]


def _is_vector(output: Array) -> bool:
    return output.dtype.kind == "f" and output.ndim in (1, 2, 3)


def _apart(first: list[Array], second: list[Array]) -> float:
    """The largest difference, relative to the largest value of its output."""
    pairs = [
        (np.nan_to_num(a.astype(np.float64)), np.nan_to_num(b.astype(np.float64)))
        for a, b in zip(first, second, strict=True)
    ]
    return max((float(np.abs(a - b).max() / (np.abs(a).max() + 1e-9)) for a, b in pairs if a.size), default=0.0)


def _axes(tensor: gs.Tensor) -> tuple[int | str, ...] | None:
    return None if tensor.shape is None else tuple(tensor.shape)


def _graph(path: Path) -> gs.Graph:
    proto, weights = read_skeleton(path)
    try:
        graph = gs.import_onnx(inlined(path, proto) if proto.functions else proto)
    except Exception as error:
        raise ModelError(f"{path}: the graph cannot be read ({one_line(error)})") from error
    tensors = graph.tensors()
    for name in weights.keys() & tensors.keys():
        tensors[name].values = weights[name]
    return graph
