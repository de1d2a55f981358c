"""A model's classes and a data set's labels are one order by their names; numbers that are upside down are refused."""

import json
import os
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from answering_models import WORDS, classifier, reading, texts

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.errors import AccuracyGateError, DataError
from onnxslim_bert.model.model_config import read_config
from onnxslim_bert.proof.class_order import check_class_order, class_order
from onnxslim_bert.proof.gates import Budgets, enforce
from onnxslim_bert.proof.validate import validate

NAMES = ("apple", "pear", "Plum tart")
TABLE = np.array([[0, 0, 0], [3, 0, 0], [2, 0, 0], [0, 2, 0], [0, 3, 0], [0, 0, 2], [0, 0, 3], [0, 0, 5]], np.float32)
ROWS = [f"w{first} w{first} w{second}" for first in range(WORDS) for second in range(WORDS)]
RIGHT = [int(np.argmax(sum(TABLE[int(word[1:]) + 1] for word in row.split()))) for row in ROWS]


def model(folder: Path, order: tuple[int, ...], config: dict[str, object] | None = None) -> Path:
    """The right model with its classes in this order."""
    folder.mkdir(exist_ok=True)
    reading(folder)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return classifier(folder / "m.onnx", np.ascontiguousarray(TABLE[:, order]))


def named(order: tuple[int, ...]) -> dict[str, object]:
    return {"id2label": {str(place): NAMES[mine].upper() for place, mine in enumerate(order)}}


def file_of(folder: Path, labels: list[object]) -> Dataset:
    path = folder / "rows.jsonl"
    rows = [json.dumps({"text": row, "label": label}) for row, label in zip(ROWS, labels, strict=True)]
    path.write_text("\n".join(rows))
    return load_dataset(str(path), "evaluation")


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_labels_as_words_are_mapped_by_name_in_any_order(tmp_path, order):
    """Upper or lower case, with spaces or underscores: every row is right, and a damaged candidate fails."""
    base = model(tmp_path, order, named(order))
    words = ["plum_tart" if label == 2 else NAMES[label] for label in RIGHT]
    rows = file_of(tmp_path, words)
    result = validate(base, base, rows, reading(tmp_path), Budgets(max_drop=10))
    assert result.comparison.scores[0].base.value == 100
    worse = model(tmp_path / "worse", tuple(order[place] for place in (1, 0, 2)))
    with pytest.raises(AccuracyGateError, match="max-drop missed"):
        enforce(validate(base, worse, rows, reading(tmp_path), Budgets(max_drop=10)).verdicts)


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("numbers", [{"id2label": {}}, {"id2label": None}, {}])
def test_label2id_alone_names_the_classes(tmp_path, order, numbers):
    names = {NAMES[mine]: place for place, mine in enumerate(order)}
    base = model(tmp_path, order, numbers | {"label2id": names | {"another word for it": 0}})
    rows = file_of(tmp_path, [NAMES[label] for label in RIGHT])
    assert validate(base, base, rows, reading(tmp_path)).comparison.scores[0].base.value == 100


@pytest.mark.parametrize("words", ["LABEL_{}", "label {}", " Label{} ", "label_0{}"])
def test_numbered_labels_are_numbers(tmp_path, words):
    """As transformers writes them where nobody gave names: in the order of the numbers, not of the alphabet."""
    base = model(tmp_path, (0, 1, 2), {"id2label": {str(n): f"LABEL_{n}" for n in range(3)}})
    rows = file_of(tmp_path, [words.format(label) for label in RIGHT])
    assert validate(base, base, rows, reading(tmp_path)).comparison.scores[0].base.value == 100


@pytest.mark.parametrize("config", [None, {"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}])
def test_words_that_the_model_does_not_know_are_refused(tmp_path, config):
    """With both lists."""
    base = model(tmp_path, (0, 1, 2), config)
    rows = file_of(tmp_path, [NAMES[label] for label in RIGHT])
    with pytest.raises(DataError, match=r"has the labels Plum tart, apple, pear, the model's classes are numbers"):
        validate(base, base, rows, reading(tmp_path))


@pytest.mark.parametrize(
    "order", [order for order in permutations(range(3)) if all(i != j for i, j in enumerate(order))]
)
def test_numbers_that_are_upside_down_are_refused_with_the_right_order(tmp_path, order):
    """Instead of a gate that a damaged model passes."""
    base = model(tmp_path, order)
    pairs = ", ".join(f"class {place} is label {mine}" for place, mine in enumerate(order))
    with pytest.raises(DataError, match=rf"m\.onnx is right on 0\.00 % of .*, and on 100\.00 % where {pairs}"):
        validate(base, base, texts(ROWS, RIGHT), reading(tmp_path))


@pytest.mark.parametrize("labels", ["words", "numbers of a named set"])
def test_names_that_are_upside_down_are_refused(tmp_path, labels):
    """The configuration lies: the gate would be upside down as if it had none."""
    base = model(tmp_path, (0, 1, 2), named((1, 2, 0)))
    rows = file_of(tmp_path, [NAMES[label] for label in RIGHT])
    if labels != "words":
        rows = replace(rows, worded=False)
    said = r"m\.onnx is right on 0\.00 % of .*, and on 100\.00 % where what it calls .*: needed id2label"
    with pytest.raises(DataError, match=said) as caught:
        validate(base, base, rows, reading(tmp_path))
    for mine, called in enumerate((1, 2, 0)):
        assert f"what it calls {NAMES[called]} is {NAMES[mine]}" in str(caught.value)


def test_a_model_that_is_only_bad_is_measured():
    """Guesses, one class for all, and too few rows to tell."""
    rows = texts(["w0"] * 40, [0] * 36 + [1] * 4)
    for answers in (np.ones(40, int), np.arange(40) % 2):
        check_class_order(answers, rows, 2, ordered=False, model="m.onnx")
    check_class_order(np.array([1, 0]), texts(["w0", "w1"], [0, 1]), 2, ordered=False, model="m.onnx")
    with pytest.raises(DataError, match="far under chance"):
        check_class_order(1 - np.arange(40) % 2, texts(["w0"] * 40, list(range(2)) * 20), 2, ordered=False, model="m")


@pytest.mark.parametrize(("right", "refused"), [(0.05, True), (0.28, True), (0.32, True), (0.36, False), (0.48, False)])
def test_how_far_under_chance_is_upside_down(right, refused):
    """A model that is right on 72 % is right on 28 % with both classes exchanged; one on 40 % may be only bad."""
    labels = np.arange(280) % 2
    answers = np.where(np.arange(280) < right * 280, labels, 1 - labels)
    rows = texts(["w0"] * 280, list(labels))
    if not refused:
        check_class_order(answers, rows, 2, ordered=False, model="m.onnx")
        return
    with pytest.raises(DataError, match="far under chance"):
        check_class_order(answers, rows, 2, ordered=False, model="m.onnx")


def test_classes_that_the_data_lack_are_wrong():
    """A model of entailment, neutral and contradiction on two classes."""
    rows = Dataset("rte", "dev", (("a",),) * 2, np.array([0, 1]), "accuracy", names=("yes", "no"))
    path = Path("config.json")
    assert not path.exists()
    config = read_config(Path("m.onnx"))
    assert class_order(config, rows, 3) is None
    config = type(config)(labels=("no", "maybe", "yes"), classes=3, ids={"no": 0, "maybe": 1, "yes": 2})
    assert class_order(config, rows, 3) == (1, -1, 0)


def test_whole_scores_are_classes_to_a_classifier(tmp_path):
    """Labels written as 1.0 by whatever made the file."""
    base = model(tmp_path, (0, 1, 2))
    rows = file_of(tmp_path, [float(label) for label in RIGHT])
    assert rows.metric == "pearson-spearman"
    (score,) = validate(base, base, rows, reading(tmp_path)).comparison.scores
    assert (score.metric, score.base.value) == ("accuracy", 100)


@pytest.mark.parametrize("labels", [["good", "bad"], [None, 1], ["1", "none"], ["", ""]])
def test_labels_of_calibration_rows_are_never_an_error(tmp_path, labels):
    """They are not needed."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": "w0", "label": label}) for label in labels))
    assert len(load_dataset(str(path), "calibration")) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "list: needed a JSON object"),
        ("{", "is no JSON"),
        ('{"id2label": {"0": "a", "2": "b"}}', "numbers its classes with gaps"),
        ('{"id2label": {"a": "0"}}', "a class that is no number"),
        ('{"id2label": {"0": []}}', r"names a class \[\]: needed names"),
    ],
)
def test_configurations_that_cannot_be_read_are_said(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(DataError, match=message):
        read_config(tmp_path / "m.onnx")


@pytest.mark.parametrize("place", ["config.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_configuration_that_is_no_file_is_not_passed_over(tmp_path, place, make):
    """That of the pooling neither, where there is no other."""
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "modules.json").write_text("[]")
    make(tmp_path / place)
    with pytest.raises(DataError, match="no regular file: needed a JSON object"):
        read_config(tmp_path / "m.onnx")
