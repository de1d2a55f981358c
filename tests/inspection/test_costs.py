"""Parameters, bytes and FLOPs by part are those of the source model."""

import pytest
from graphs import EVERY, SOME, fixture, prepared, reference
from inspected import costs, inspected

from onnxslim_bert.inspection.flops import flops_by_part
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse

BERTS = tuple(name for name in EVERY if name.startswith("bert-"))
OTHERS = ("fused-attention", "fused-mha", "bert-dynamo23-sdpa", "quantized-dynamic", "quantized-qdq")
WIDTH, FFN, CLASSES, WORDS = 12, 20, 5, 37  # of the fixtures


@pytest.mark.parametrize("name", sorted({*BERTS, *SOME, *OTHERS}))
def test_parameters_are_those_of_the_source_model(name):
    """Whatever the exporter, fused and quantized or not; ALBERT's three layers are one."""
    weights = {role: values.size for role, values in reference(name).items() if role.endswith((".weight", ".bias"))}
    if name.startswith("albert"):
        weights = {role: size for role, size in weights.items() if not role.startswith(("layers.1", "layers.2"))}
    expected = {"embeddings": 0, "attention": 0, "feed-forward": 0, "other": 0}
    for role, size in weights.items():
        feeds_forward = any(word in role for word in (".up.", ".down.", "ffn_norm", "final_norm"))
        part = "embeddings" if role.startswith("embeddings") else "feed-forward" if feeds_forward else "attention"
        expected[part] += size
    expected["head"] = WIDTH * WIDTH + WIDTH + WIDTH * CLASSES + CLASSES
    assert costs(inspected(name), "parameters") == expected


@pytest.mark.parametrize("name", BERTS)
def test_bytes_are_four_a_parameter(name):
    """Positions, scalars and shapes are the few more."""
    stored = costs(inspected(name), "nbytes")
    for part, parameters in costs(inspected(name), "parameters").items():
        assert 4 * parameters <= stored[part] <= 4 * parameters + 256
    assert sum(stored.values()) < fixture(name).stat().st_size


@pytest.mark.parametrize("name", [*BERTS, *OTHERS])
@pytest.mark.parametrize(("batch", "seq"), [(1, 128)])
def test_flops_follow_from_the_sizes(name, batch, seq):
    """Two for each weight and token, two for each product of scores and context; lookups are free."""
    tokens = batch * seq
    assert costs(inspected(name, batch, seq), "flops") == {
        "embeddings": 0,
        "attention": 3 * (2 * 4 * tokens * WIDTH * WIDTH + 2 * 2 * tokens * seq * WIDTH),
        "feed-forward": 3 * 2 * 2 * tokens * WIDTH * FFN,
        "head": 2 * batch * (WIDTH * WIDTH + WIDTH * CLASSES),
        "other": 0,
    }


def test_a_projection_works_on_every_token():
    """ELECTRA's tables are 10 wide."""
    assert costs(inspected("electra-ts17-sdpa", 3, 7), "flops")["embeddings"] == 2 * 3 * 7 * 10 * WIDTH


def test_a_language_models_head_works_on_every_token():
    """A transform, then the words."""
    assert costs(inspected("bert-mlm", 3, 7), "flops")["head"] == 2 * 3 * 7 * WIDTH * (WIDTH + WORDS)


def test_first_token_saves_what_it_does_not_compute():
    """In the last layer only keys and values see every token."""
    model = prepared("bert-ts17-eager", Canonicalize(), Fuse(), FirstToken())
    whole, first = (2 * rows * WIDTH for rows in (3 * 7, 3))
    flops = flops_by_part(model, 3, 7)
    assert flops["feed-forward"] == 2 * 2 * FFN * whole + 2 * FFN * first
    assert flops["attention"] == 2 * (4 * WIDTH + 2 * 7) * whole + 2 * WIDTH * whole + (2 * WIDTH + 2 * 7) * first


@pytest.mark.parametrize(("name", "copies"), [("bert-mlm", 2), ("bert-mlm-tied", 1)])
def test_tied_words_count_once(name, copies):
    """As parameters; as bytes, as often as the file stores them."""
    found = inspected(name)
    rest = WIDTH * WIDTH + 3 * WIDTH + WORDS
    assert costs(found, "parameters")["head"] == rest
    assert costs(found, "nbytes")["head"] == 4 * rest + (copies - 1) * 4 * WORDS * WIDTH
