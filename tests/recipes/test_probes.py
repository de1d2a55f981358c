"""Probe rows are padded for every model that can tell: by a mask, or by the ids of padding."""

import numpy as np

from onnxslim_bert.model.role_names import InputRole
from onnxslim_bert.recipes.probes import Limits

ALONE = Limits((("input_ids", InputRole("ids")),), vocabulary=50, types=1, longest=40, batch=None, seq=None)


def test_a_model_of_ids_alone_gets_rows_with_either_id_of_padding():
    """Its mask may be made of them: runs of 0 or of 1 at the end and at the beginning, elsewhere neither."""
    seen = set()
    for probe in ALONE.probes():
        for row in probe.feeds["input_ids"]:
            for pad in (0, 1):
                padded = row == pad
                if padded.any():
                    seen.add((pad, "left" if padded[0] else "right"))
                    assert (np.diff(padded.astype(int)) != 0).sum() == 1
                    assert not (row == 1 - pad).any()
    assert seen == {(0, "left"), (0, "right"), (1, "left"), (1, "right")}


def test_with_a_mask_padding_holds_any_id():
    """So that a model that reads padding shows."""
    masked = Limits((*ALONE.roles, ("mask", InputRole("mask"))), 50, 1, 40, None, None)
    probes = [probe for probe in masked.probes() if not probe.empty]
    assert any((probe.feeds["mask"] == 0).any() for probe in probes)
    assert all(probe.feeds["input_ids"].min() >= 2 for probe in probes)
