"""Whether the rows of a data set are of the form that a task reads."""

from onnxslim_bert.calibration.dataset import CHOICE, RANKED, Dataset
from onnxslim_bert.errors import DataError
from onnxslim_bert.proof.tasks.table import TASKS


def check_rows(dataset: Dataset, task: str) -> None:
    """Raise DataError for rows that `task` cannot be judged by, naming both. Ready inputs have no form but for answers.

    Tags, masked words and classes need no rows of their own: without labels, models are compared on any texts.
    """
    texts = {len(row) for row in dataset.texts}
    fits = {
        "answers": dataset.form == "passages",
        "triplets": texts <= {3},
        CHOICE: not texts & {1, 2},
        **dict.fromkeys(RANKED, texts <= {2}),
    }
    if not fits.get(task, True) and (dataset.feeds is None or task == "answers"):
        raise DataError(f"task '{task}' reads {TASKS[task].reads}: '{dataset.name}' holds {_held(dataset)}")


def _held(dataset: Dataset) -> str:
    if dataset.feeds is not None:
        return "ready inputs"
    said = {"words": "sentences of words", "passages": "questions with passages"}
    return said.get(dataset.form) or ("pairs of texts" if dataset.is_pairs else "single texts")
