"""A layer that is trained by itself leaves more nearly what the teacher's layer leaves."""

import numpy as np
import pytest
from graphs import batches, prepared

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_blockwise import QuantizeBlockwise

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'onnxslim-bert[distill]'")

from onnxslim_bert.rewriting.distillation import layer_fitting  # noqa: E402
from onnxslim_bert.rewriting.distillation.executor import Executor  # noqa: E402
from onnxslim_bert.rewriting.distillation.layer_fitting import fit_layers  # noqa: E402
from onnxslim_bert.rewriting.distillation.layers import layer_pairs  # noqa: E402
from onnxslim_bert.rewriting.distillation.plan import DistillationPlan  # noqa: E402
from onnxslim_bert.rewriting.distillation.texts import Texts, padding_of, rows_of  # noqa: E402

FOUR_BITS = QuantizeBlockwise(block=16, rounding="nearest", compute="float32")
PLAN = DistillationPlan(
    texts=64, batch=8, copies=0, replace=0, join=0, balance=False, epochs=1, steps=0, minutes=0, rate="auto",
    words=False, quantized=True, layer_epochs=8, seed=0,
)  # fmt: skip


def setting(name, *passes):
    """Teacher, student of four bits, and texts."""
    teacher = prepared(name, Canonicalize())
    given = batches(teacher, ((24, 9), (24, 6), (16, 1)))
    return teacher, prepared(name, Canonicalize(), *passes, FOUR_BITS), Texts(rows_of(given), padding_of(given), 8)


def fitted(teacher, student, texts):
    """A copy of `student` with fitted layers."""
    copy = student.clone()
    for name, values in fit_layers(student, teacher, texts, PLAN, lambda *_: None).items():
        copy.replace(name, values)
    return copy


def layer_errors(student, teacher, texts):
    """The squared error of what each layer leaves, over tokens that are no padding, of the first where it is one."""
    pairs, errors = layer_pairs(student, teacher), []
    for batch in texts.epoch():
        ours = Executor(student).run(batch.feeds, [mine for mine, _ in pairs])
        theirs = Executor(teacher).run(batch.feeds, [other for _, other in pairs])
        errors.append(
            [
                float((a - b[:, : a.shape[1]])[torch.from_numpy(batch.mask[:, : a.shape[1]])].square().mean())
                for a, b in zip(ours, theirs, strict=True)
            ]
        )
    return np.mean(errors, 0)


@pytest.mark.parametrize(
    ("name", "passes"),
    [("bert-dynamo20-sdpa", (Fuse(),)), ("bert-ts17-sdpa", (Fuse(), FirstToken())), ("roberta-ts17-sdpa", ())],
    ids=["fused", "one token in the last layer", "as exported"],
)
def test_every_layer_leaves_more_nearly_what_the_teachers_leaves(name, passes):
    teacher, student, texts = setting(name, *passes)
    before = layer_errors(student, teacher, texts)
    after = layer_errors(fitted(teacher, student, texts), teacher, texts)
    assert len(before) == len(teacher.encoder.layers)
    assert (after < 0.9 * before).all()


def test_levels_move_and_the_student_that_was_given_stays():
    teacher, student, texts = setting("bert-dynamo20-sdpa", Fuse())
    first = {name: constant.values.copy() for name, constant in student.constants().items()}
    found = fit_layers(student, teacher, texts, PLAN, lambda *_: None)
    for name, values in first.items():
        np.testing.assert_array_equal(student.array(name), values, err_msg=name)
    levels = {name: values for name, values in found.items() if values.dtype == np.uint8}
    matrices = sum(len(layer.linears) for layer in teacher.encoder.layers)
    assert len(levels) == matrices
    assert sum(int((values != first[name]).sum()) for name, values in levels.items()) > 20


def test_a_weight_that_layers_share_is_trained_in_the_first():
    teacher, student, texts = setting("albert-ts14-sdpa", Fuse())
    assert layer_errors(fitted(teacher, student, texts), teacher, texts)[0] < layer_errors(student, teacher, texts)[0]


def test_as_many_texts_are_taken_as_there_is_room_for(monkeypatch):
    """Each layer of a student of one batch takes as many steps as there are epochs."""
    teacher, student, texts = setting("bert-dynamo20-sdpa", Fuse())
    monkeypatch.setattr(layer_fitting, "ROOM", 1)
    said = []
    fit_layers(student, teacher, texts, PLAN, lambda text, done, total: said.append((text[:24], done, total)))
    layers = len(teacher.encoder.layers)
    assert said == [(f"distilling: layer {i + 1} of {layers}", step + 1, 8) for i in range(layers) for step in range(8)]


def test_layers_whose_ends_are_not_found_are_refused(monkeypatch):
    teacher, student, texts = setting("bert-dynamo20-sdpa", Fuse())
    monkeypatch.setattr(layer_fitting, "layer_pairs", lambda *_: [])
    with pytest.raises(PassError, match="layer-epochs needs layers, whose ends were not found in this model; leave it"):
        fit_layers(student, teacher, texts, PLAN, lambda *_: None)
