"""Whether a model numbers its classes as a data set does: by their names, else by what it answers."""

from itertools import permutations

import numpy as np

from onnxslim_bert.arrays import Array
from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.errors import DataError
from onnxslim_bert.model.model_config import ModelConfig
from onnxslim_bert.proof.intervals import wilson

MOST_PERMUTED = 6  # classes of which every order is tried
FAR_UNDER = 2 / 3  # of what chance gives


def class_order(config: ModelConfig, dataset: Dataset, classes: int) -> tuple[int, ...] | None:
    """The data set's number for each of the model's classes, matched by name; -1 for a class that the data set lacks.

    Example: the model's classes are negative, positive and the data set's are positive, negative: (1, 0).
    None where names do not say it; then numbers are taken as they are. Raises DataError when labels are words and the
    model has other names, or none.
    """
    if dataset.labels is None or dataset.labels.dtype.kind != "i" or not dataset.names:
        return None
    ids = {_plain(name): number for name, number in config.ids.items()}
    numbers = [ids.get(_plain(name)) for name in dataset.names]
    if any(number is None or not 0 <= number < classes for number in numbers):
        if dataset.worded:
            known = ", ".join(config.labels) or "numbers without names"
            raise DataError(
                f"'{dataset.name}' has the labels {', '.join(dataset.names[:5])}, the model's classes are {known}: "
                "needed the same names in id2label of the model's config.json, or class numbers as labels"
            )
        return None
    return tuple(numbers.index(number) if number in numbers else -1 for number in range(classes))


def check_class_order(predictions: Array, dataset: Dataset, classes: int, ordered: bool, model: str) -> None:
    """Raise DataError when a model seems to number its classes otherwise than the data set does.

    It seems so when it is right on less than two thirds of what chance gives, and another order of the classes puts it
    above chance and above the most frequent label, by 95 % intervals. Example: of two classes, right on 28 % of the
    rows, and on 72 % with the classes exchanged.
    predictions: [rows], the data set's classes. ordered: both have names, by which they were matched; then it is the
    names in the model's configuration that are wrong.
    """
    labels = dataset.labels
    if labels is None or labels.dtype.kind != "i" or not 2 <= classes <= MOST_PERMUTED:
        return
    confusion = np.zeros((classes, classes), np.int64)  # [answered, right]
    inside = (predictions >= 0) & (predictions < classes) & (labels < classes)
    np.add.at(confusion, (predictions[inside], labels[inside]), 1)
    rows, chance = len(labels), 100 / classes
    own = wilson(int(np.trace(confusion)), rows)
    best = max(permutations(range(classes)), key=lambda order: sum(confusion[i, j] for i, j in enumerate(order)))
    other = wilson(int(sum(confusion[i, j] for i, j in enumerate(best))), rows)
    largest = 100 * float(confusion.sum(axis=0).max()) / rows  # what one class for every row gives
    if own.high < chance and own.value < FAR_UNDER * chance and other.low > max(largest, chance):
        moved = [(i, j) for i, j in enumerate(best) if i != j]
        if ordered and max(map(max, moved)) < len(names := dataset.names):
            pairs = ", ".join(f"what it calls {names[i]} is {names[j]}" for i, j in moved)
            needed = "needed id2label of its config.json in the order of the model's classes"
        else:
            pairs = ", ".join(f"class {i} is label {j}" for i, j in moved)
            needed = "needed labels in the model's order, or their names in id2label of its config.json and in the data"
        raise DataError(
            f"{model} is right on {own.value:.2f} % of '{dataset.name}', far under chance ({chance:.0f} %), and on "
            f"{other.value:.2f} % where {pairs}: {needed}"
        )


def _plain(name: str) -> str:
    return name.strip().casefold().replace("-", "_").replace(" ", "_")
