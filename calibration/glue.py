"""The GLUE tasks: how many texts a row has, what the labels are, and the metric that judges them.

Wang et al. 2018, https://arxiv.org/abs/1804.07461; splits and class numbers as in nyu-mll/glue on the hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from onnxslim_bert.calibration.columns import Classes, Scores

Task = Literal["accuracy", "f1", "matthews", "pearson-spearman"]


@dataclass(frozen=True)
class Glue:
    """A task: texts in a row, labels, metric, and the splits to calibrate and to evaluate on."""

    texts: int
    labels: Classes | Scores
    metric: Task
    calibration: str = "train"
    evaluation: str = "validation"


_THREE_WAY = Classes(("entailment", "neutral", "contradiction"))
_TWO_WAY = Classes(("entailment", "not_entailment"))

GLUE: Mapping[str, Glue] = {
    "cola": Glue(1, Classes(("unacceptable", "acceptable")), "matthews"),
    "sst2": Glue(1, Classes(("negative", "positive")), "accuracy"),
    "mrpc": Glue(2, Classes(("not_equivalent", "equivalent")), "f1"),
    "stsb": Glue(2, Scores(0, 5), "pearson-spearman"),
    "qqp": Glue(2, Classes(("not_duplicate", "duplicate")), "f1"),
    "mnli": Glue(2, _THREE_WAY, "accuracy", evaluation="validation_matched"),
    "qnli": Glue(2, _TWO_WAY, "accuracy"),
    "rte": Glue(2, _TWO_WAY, "accuracy"),
    "wnli": Glue(2, Classes(("not_entailment", "entailment")), "accuracy"),
    "ax": Glue(2, _THREE_WAY, "matthews", calibration="test", evaluation="test"),
}

# The diagnostic set: its labels are held back, so it can show fidelity but no score.
UNLABELLED = frozenset({"ax"})
