"""Give a model with a trimmed vocabulary a smaller tokenizer, so that it needs no map from old token ids to rows."""

import json

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.vocabulary import keep_tokens, protected_ids, read_tokenizer
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.graph.sessions import run
from onnxslim_bert.graph.signature import fixed_axes, flat_shape
from onnxslim_bert.model.input_roles import graph_roles
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.model.session import model_session
from onnxslim_bert.passes.trim_vocabulary import kept_tokens

TOKENIZER = "tokenizer.json"
PROBE = (4, 16)  # batch and length of the ids on which answers are compared, where the graph leaves them open


def rewrite_tokenizer(model: Model, tokenizer_json: str) -> str:
    """Cut the tokenizer to the tokens that a trimmed `model` keeps, and let the model's word table take the new ids.

    Returns the text of the smaller tokenizer.json; `model` is changed. A text whose tokens are all kept is answered as
    before. In other texts a word whose piece is gone is now split into smaller pieces; with the map, it read the row of
    another token in its place. Some tokens have to stay in the tokenizer although they have no row of their own (in
    BPE, what kept tokens are merged from): each gets a copy of the row that the map gave it. Works before or after
    quantization.

    Example: ids 0, 5 and 9 are kept: the new tokenizer numbers their tokens 0, 1 and 2.

    tokenizer_json: the content of the file that the model was trimmed with. Raises DataError when it cannot be cut,
    PassError when the model has no map, or reads ids elsewhere too and renumbered ones change its answers; the model is
    then as it was.
    """
    mapping = model.encoder.embeddings.map
    if mapping is None:
        raise PassError("the word table is read without a map; run trim-vocabulary first")
    rows = model.array(mapping)
    kept = protected_ids(tokenizer_json) | {*kept_tokens(rows).tolist()}
    tokenizer, old_ids = keep_tokens(read_tokenizer(tokenizer_json), kept)
    if old_ids[-1] >= len(rows):
        raise PassError(
            f"the tokenizer has a token {old_ids[-1]}, the model's map {len(rows)} ids; give the model's own"
        )
    special = [token["id"] for token in tokenizer["added_tokens"]]
    candidate = model.clone()
    _drop_map(candidate, mapping, rows[old_ids])
    _check_same(model, candidate, old_ids, special)
    _drop_map(model, mapping, rows[old_ids])
    return json.dumps(tokenizer, ensure_ascii=False, indent=2)


def _drop_map(model: Model, mapping: str, rows: Array) -> None:
    """Take the map out of the graph: the word table becomes its own `rows`, one for each new id, and is read by ids."""
    tables: set[str] = set()  # int8 rows and their scales are two
    for step in list(model.constants()[mapping].outputs):
        for lookup in list(step.outputs[0].outputs):
            if lookup.op != "Gather" or constant(lookup.inputs[0]) is None:
                raise PassError(f"node {lookup.name!r} ({lookup.op}) reads the map for something else than a table")
            tables.add(lookup.inputs[0].name)
            lookup.inputs[1] = step.inputs[1]
    for name in tables:
        model.replace(name, model.array(name)[rows])
    model.changed()


def _check_same(before: Model, after: Model, old_ids: Array, special: list[int]) -> None:
    """Raise PassError unless `after` answers new ids exactly as `before` answers the old ids of the same tokens.

    old_ids: the old id of each new one. special: new ids that are tried in any case, as far as they fit: those of
    added tokens such as padding, which graphs may compare ids with.
    """
    batch, length = (given or open_ for given, open_ in zip(_fixed(before), PROBE, strict=True))
    new_ids = np.random.default_rng(0).integers(0, len(old_ids), (batch, length))
    new_ids.flat[: len(special) * 3 : 3] = special[: (new_ids.size + 2) // 3]
    types = {tensor.name: np.dtype(tensor.dtype) for tensor in before.graph.inputs}
    roles = graph_roles(before.graph, lambda: model_session(before))

    def answers(model: Model, ids: Array) -> list[Array]:
        values = {"ids": ids, "types": np.zeros_like(ids)}
        feeds = {name: values.get(each.role, each.written(np.ones(ids.shape, bool))) for name, each in roles.items()}
        return run(model_session(model), {name: each.astype(types[name]) for name, each in feeds.items()})

    ours, theirs = answers(before, old_ids[new_ids]), answers(after, new_ids)
    for output, exact, found in zip(before.graph.outputs, ours, theirs, strict=True):
        if not np.array_equal(exact, found):
            raise PassError(
                f"output {output.name!r} changes when ids do: the graph reads them besides the word table; keep the map"
            )


def _fixed(model: Model) -> tuple[int | None, int | None]:
    return fixed_axes(flat_shape(tensor.shape or (), tensor.dtype) for tensor in model.graph.inputs)
