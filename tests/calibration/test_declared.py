"""Numbers of classes mean what their file says that they mean, whatever numbers a model has for them."""

import json

import numpy as np
import pytest

from onnxslim_bert.calibration.declared import Coded, coded, features_of
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.model.model_config import ModelConfig
from onnxslim_bert.proof.class_order import class_order

ROWS = [{"text": "good", "label": 0}, {"text": "bad", "label": 1}, {"text": "fine", "label": 0}]
KIND = {"names": ["positive", "negative"], "_type": "ClassLabel"}
FEATURES = {"text": {"dtype": "string", "_type": "Value"}, "label": KIND}


def page(tmp_path):
    """Rows as the hub's server sends them."""
    features = [{"feature_idx": i, "name": name, "type": kind} for i, (name, kind) in enumerate(FEATURES.items())]
    rows = [{"row_idx": i, "row": row, "truncated_cells": []} for i, row in enumerate(ROWS)]
    (tmp_path / "rows.json").write_text(json.dumps({"features": features, "rows": rows}))
    return tmp_path / "rows.json"


def parquet(tmp_path):
    """Rows as `datasets` writes them."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    pq.write_table(pa.Table.from_pylist(ROWS).replace_schema_metadata(metadata), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.mark.parametrize("written", [page, parquet])
@pytest.mark.parametrize(
    ("names", "order"),
    [(("negative", "positive"), (1, 0)), (("POSITIVE", "NEGATIVE"), (0, 1)), (("bad", "good"), None), ((), None)],
)
def test_declared_names_are_matched_with_the_models(tmp_path, written, names, order):
    """And where the model has other names, or none, numbers are what they are."""
    dataset = load_dataset(str(written(tmp_path)), "evaluation")
    assert (dataset.names, dataset.worded) == (("positive", "negative"), False)
    np.testing.assert_array_equal(dataset.labels, [0, 1, 0])
    config = ModelConfig(labels=names, ids={name: number for number, name in enumerate(names)})
    assert class_order(config, dataset, 2) == order


@pytest.mark.parametrize(
    "features",
    [
        None,
        7,
        [],
        [None, {"name": ["label"], "type": KIND}],
        {"label": None},
        {"label": {**KIND, "_type": "Value"}},
        {"label": {**KIND, "names": None}},
        {"label": {**KIND, "names": ["one"]}},
        {"label": {**KIND, "names": ["same", "same"]}},
        {"label": {**KIND, "names": [1, 2]}},
    ],
)
def test_what_declares_no_classes_is_left_aside(features):
    assert not any(isinstance(values, Coded) for values in coded({"label": [0, 1]}, features).values())


@pytest.mark.parametrize("said", [b"{", b"[]", b"7", b'{"info": null}', b'{"info": {}}', b"[" * 100_000])
def test_metadata_of_another_form_say_nothing(said):
    assert features_of({b"huggingface": said}) is None
    assert features_of(None) is None
