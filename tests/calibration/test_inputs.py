"""The inputs of a model are told apart by name, and by order where names say nothing."""

import numpy as np
import pytest

from onnxslim_bert.calibration.inputs import find_roles
from onnxslim_bert.errors import DataError

INT64 = np.dtype(np.int64)


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (["input_ids", "attention_mask", "token_type_ids"], ["ids", "mask", "types"]),
        (["attention_mask", "input_ids"], ["mask", "ids"]),
        (["input_ids", "segment_ids", "input_mask"], ["ids", "types", "mask"]),
        (["input_word_ids:0", "input_mask:0", "input_type_ids:0"], ["ids", "mask", "types"]),
        (["input.1", "input.3", "attention_mask"], ["ids", "types", "mask"]),
        (["x", "y", "z"], ["ids", "mask", "types"]),
        (["tokens"], ["ids"]),
    ],
)
def test_roles_are_found_whatever_the_order(names: list[str], roles: list[str]) -> None:
    assert find_roles(dict.fromkeys(names, INT64)) == dict(zip(names, roles, strict=True))


def test_a_mask_may_be_float() -> None:
    assert find_roles({"input_ids": INT64, "attention_mask": np.dtype(np.float32)})["attention_mask"] == "mask"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"input_ids": INT64, "position_ids": INT64}, r"model input 'position_ids' \(int64\) cannot be made from text"),
        ({"pixel_values": np.dtype(np.float32)}, r"'pixel_values' \(float32\) cannot be made from text"),
        ({"a": INT64, "b": INT64, "c": INT64, "d": INT64}, "model input 'd'"),
        ({"input_ids": np.dtype(np.float32)}, "none takes integer token ids"),
        ({"attention_mask": INT64}, "none takes integer token ids"),
        ({}, "none takes integer token ids"),
    ],
)
def test_inputs_that_text_cannot_fill_are_refused(inputs: dict[str, np.dtype[np.generic]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_roles(inputs)
