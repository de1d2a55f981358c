"""When a reader of passages says that there is no answer: by how much that must be likelier than the best span.

Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 4.3; the best threshold of the rows themselves is what
SQuAD 2.0's official script calls `best_exact` and `best_f1` (Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822).
"""

from dataclasses import dataclass

import numpy as np

from onnxslim_bert.arrays import Array


@dataclass(frozen=True)
class Threshold:
    """The threshold that scores best, and what each question scores with it.

    value: silent where the lead of "no answer" over the best span is above it, `null_score_diff_threshold` of
    transformers' run_qa.py; -inf where never to answer is best. scores: float64 [questions].
    """

    value: float
    scores: Array

    def __str__(self) -> str:
        """The value as it is printed."""
        return f"{self.value:.4g}" if np.isfinite(self.value) else "anything (never to answer is best)"


def best_threshold(answered: Array, silent: Array, leads: Array) -> Threshold:
    """The threshold with the highest mean score, the least such one.

    answered, silent: what each question scores with the span and with no answer, [questions]. leads: of the span over
    no answer, [questions]; -inf where there is no span.

    Example: leads 2, 1, -1, of questions whose spans are right, wrong and right, and of which the second has no answer.
    At -2 only the first is answered, at -1 the second too, at 1 all three: 2, 1 and 2 are right, so -2 is the best.
    """
    behind, gains = 0.0 - leads, answered - silent
    choices, group = np.unique(behind, return_inverse=True)
    totals = np.concatenate([[0.0], np.cumsum(np.bincount(group, weights=gains))])[: 1 + np.isfinite(choices).sum()]
    best = int(totals.argmax())
    value = float(choices[best - 1]) if best else -np.inf
    return Threshold(value, np.where(behind <= value, answered, silent))
