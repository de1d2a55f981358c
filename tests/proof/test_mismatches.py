"""Each task on each kind of model: it is judged, or one line names the task, what it needs and what is answered."""

import json
from pathlib import Path

import numpy as np
import pytest
from answering_models import WORDS, classifier, embedder, per_token, reading

from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import DataError
from onnxslim_bert.proof.tasks.table import TASKS
from onnxslim_bert.proof.validate import validate

RNG = np.random.default_rng(4)


def table(width: int) -> np.ndarray:
    return RNG.normal(size=(WORDS + 2, width)).astype(np.float32)


MODELS = {
    "classes": lambda path: classifier(path, table(3)),
    "one score": lambda path: classifier(path, table(1)),
    "states": lambda path: embedder(path, table(5)),
    "tags": lambda path: per_token(path, table(4), ("logits",)),
    "spans": lambda path: per_token(path, table(2), ("start", "end"), squeezed=True),
    "words": lambda path: per_token(path, table(WORDS + 2), ("logits",)),
}
ROWS = {
    "classification": [{"text": f"w{n} w1", "label": n % 3} for n in range(6)],
    "multi-label": [{"text": f"w{n} w1", "label": [str(n % 3)]} for n in range(6)],
    "regression": [{"text": f"w{n} w1", "label": n / 4} for n in range(6)],
    "embedding": [{"sentence1": f"w{n} w1", "sentence2": "w2 w3", "label": n / 4} for n in range(6)],
    "triplets": [{"anchor": f"w{n}", "positive": "w1 w2", "negative": "w3"} for n in range(6)],
    "retrieval": [{"query": f"w{n}", "passage": f"w{n} w2"} for n in range(6)],
    "reranking": [{"query": f"w{n // 2}", "passage": f"w{n} w2", "label": n % 2} for n in range(6)],
    "tags": [{"tokens": [f"w{n}", "w1"], "tags": ["0", str(n % 3)]} for n in range(6)],
    "answers": [{"question": f"w{n}", "context": "w1 w2 w3", "answers": ["w2"]} for n in range(6)],
    "multiple-choice": [{"ctx": f"w{n}", "endings": ["w1", "w2"], "label": n % 2} for n in range(6)],
    "fill-mask": [{"text": f"w{n} w1"} for n in range(6)],
}
VECTORS = {"classes", "states", "tags", "words"}
SERVED = {
    "classification": {"classes"},
    "multi-label": {"classes"},
    "regression": {"one score"},
    "embedding": VECTORS,
    "triplets": VECTORS,
    "retrieval": VECTORS,
    "reranking": {"one score", *VECTORS},
    "tags": {"states", "tags", "words"},
    "answers": {"spans"},
    "multiple-choice": {"one score"},
    "fill-mask": {"words"},
}


def masked_reading(folder: Path) -> Working:
    """The tokenizer of words, with a mask."""
    reading(folder)
    document = json.loads((folder / "tokenizer.json").read_text())
    document["model"]["vocab"]["[MASK]"] = WORDS + 1
    (folder / "tokenizer.json").write_text(json.dumps(document))
    return Working(128, tokenizer=load_tokenizer(folder))


def written(folder: Path, rows: list[dict[str, object]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_every_task_has_its_rows():
    assert ROWS.keys() == SERVED.keys() == TASKS.keys()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_judged_or_the_mismatch_is_named(tmp_path, task, kind):
    working = masked_reading(tmp_path)
    base = MODELS[kind](tmp_path / "m.onnx")
    data = load_dataset(written(tmp_path, ROWS[task]), "evaluation", task=task)
    if kind in SERVED[task]:
        seen = validate(base, base, data, working).comparison
        assert seen.fidelity.agreement is None or seen.fidelity.agreement.value == 100
        assert seen.scores[0].metric in (TASKS[task].metrics or ("accuracy",))
    else:
        with pytest.raises(DataError, match=rf"task '{task}' needs .*: the model answers .*\w"):
            validate(base, base, data, working)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_on_plain_texts_is_compared_or_refused_in_a_line(tmp_path, task):
    """Models are compared where no rows of their own are needed; else the task and what the file holds are named."""
    working, data = (
        masked_reading(tmp_path),
        load_dataset(written(tmp_path, ROWS["fill-mask"]), "evaluation", task=task),
    )
    base = MODELS[sorted(SERVED[task])[-1]](tmp_path / "m.onnx")
    if task in ("triplets", "retrieval", "reranking", "answers", "multiple-choice"):
        with pytest.raises(DataError, match=rf"task '{task}' reads .*: 'rows.jsonl' holds single texts"):
            validate(base, base, data, working)
    else:
        assert validate(base, base, data, working).comparison.rows == len(data)


def test_a_reader_on_plain_texts_is_told_what_it_reads(tmp_path):
    """Also where nobody named its task."""
    working, data = masked_reading(tmp_path), load_dataset(written(tmp_path, ROWS["fill-mask"]), "evaluation")
    base = MODELS["spans"](tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"task 'answers' reads questions, passages and answers: .* single texts"):
        validate(base, base, data, working)
