"""The data of a job: a few rows that are in both sets are left out and told of, many are refused later."""

from pathlib import Path

import pytest

from onnxslim_bert.calibration.splitting import check_disjoint
from onnxslim_bert.errors import DataError
from onnxslim_bert.inspection.verify.rows_again import rows_again
from onnxslim_bert.job.data import Sources
from onnxslim_bert.job.measured import Asked


def files(folder: Path, rows: int, shared: int) -> Sources:
    """`rows` calibration texts, the first `shared` of which are evaluation texts, too."""
    (folder / "calib.txt").write_text("".join(f"text {number}\n" for number in range(rows)))
    (folder / "eval.txt").write_text("".join(f"Text  {number}\n" for number in [*range(shared), *range(900, 950)]))
    return Sources(str(folder / "calib.txt"), str(folder / "eval.txt"))


@pytest.mark.parametrize(("rows", "shared"), [(256, 1), (256, 2), (500, 5)])
def test_a_few_shared_rows_are_left_out(tmp_path, rows, shared):
    """With a word, and the same rows are found again when a model is verified."""
    sources = files(tmp_path, rows, shared)
    calibration, evaluation = sources.load(0)
    assert calibration is not None
    assert evaluation is not None
    check_disjoint(calibration, evaluation)
    assert (len(calibration), len(evaluation)) == (rows - shared, 50 + shared)
    plural = "s" * (shared > 1)
    assert evaluation.notes == (f"{shared} calibration row{plural} of {rows} left out, as evaluated on",)
    found = rows_again(Asked.of(sources, evaluated=True), 0, tmp_path, {})["calibration"]
    assert not isinstance(found, DataError)
    assert found.fingerprint() == calibration.fingerprint()


@pytest.mark.parametrize(("rows", "shared"), [(40, 1), (256, 3), (256, 256)])
def test_many_shared_rows_are_kept_to_be_refused(tmp_path, rows, shared):
    """More than one in a hundred is a mistake in the files."""
    calibration, evaluation = files(tmp_path, rows, shared).load(0)
    assert calibration is not None
    assert evaluation is not None
    assert (len(calibration), evaluation.notes) == (rows, ())
    with pytest.raises(DataError, match=f"{shared} of {rows} calibration rows are evaluation rows too"):
        check_disjoint(calibration, evaluation)


def test_what_was_asked_of_the_task_is_recorded():
    """And is not there where nothing was asked."""
    asked = Asked.of(Sources("a.txt", inputs="ids=x", task="tags", output="logits"), evaluated=False)
    assert (asked.inputs, asked.task, asked.output) == ("ids=x", "tags", "logits")
