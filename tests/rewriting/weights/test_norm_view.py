"""What the first norm makes of an error in the word table, against the norm itself."""

import numpy as np
import pytest
from graphs import prepared

from onnxslim_bert.model.norm_form import layer_norm
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.unfuse_norms import UnfuseNorms
from onnxslim_bert.rewriting.weights.norm_view import norm_view

FORMS = [(Canonicalize(),), (Canonicalize(), Fuse()), (Canonicalize(), Fuse(), UnfuseNorms())]


@pytest.mark.parametrize("steps", FORMS)
@pytest.mark.parametrize("name", ["bert-ts13-eager", "distilbert-dynamo20-sdpa", "electra-dynamo20-eager"])
def test_a_small_error_comes_out_of_the_norm_as_the_factors_say(name, steps):
    """Errors of mean zero that lean on no row: the norm takes those two parts out."""
    model = prepared(name, *steps)
    found = model.encoder.embeddings
    table = model.array(found.word).astype(np.float64)
    rows, columns = norm_view(model.graph, found)
    seen = table + model.array(found.position).mean(0)
    if found.token_type is not None:
        seen = seen + model.array(found.token_type)[0]
    rng = np.random.default_rng(5)
    error = rng.standard_normal(table.shape) * 1e-6
    for part in (np.ones_like(seen), seen - seen.mean(1, keepdims=True)):
        error -= part * ((error * part).sum(1) / (part * part).sum(1))[:, None]
    zero = np.zeros_like(columns)
    moved = layer_norm(seen + error, columns, zero, 0.0) - layer_norm(seen, columns, zero, 0.0)
    assert np.allclose(moved, error * rows[:, None] * columns, rtol=1e-3, atol=1e-9)
    assert np.ptp(columns) > 0.01


def test_where_no_norm_reads_the_sum_of_the_tables_all_count_alike():
    model = prepared("prenorm-dynamo18-eager", Canonicalize())
    word = model.graph.tensors()[model.encoder.embeddings.word]
    for node in [node for node in model.graph.nodes if node.op == "LayerNormalization"]:
        node.op = "Unknown"
    rows, columns = norm_view(model.graph, model.encoder.embeddings)
    assert (rows.shape, columns.shape) == ((len(word.values),), word.values.shape[1:])
    assert set(rows) == set(columns) == {1.0}
