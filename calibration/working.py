"""How work is done, whatever it is: on how many threads, with which seed, who reads texts, who is told."""

from dataclasses import dataclass

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.progress import Progress


@dataclass(frozen=True)
class Working:
    """What a job hands on to everything that runs models or reads rows.

    max_length: tokens kept of a calibration or evaluation row, special tokens included. threads: of each session.
    inputs: of the models by role, those that the user names, like `ids=in0,mask=in1`.
    seed: of samples, of the ids that are timed and of intervals. tokenizer: reads texts; None where there are none.
    cache: of what several jobs measure alike. progress: is told how far long work is.
    """

    max_length: int = 128
    threads: int = 1
    seed: int = 0
    tokenizer: Tokenizer | None = None
    inputs: str = ""
    cache: Cache | None = None
    progress: Progress | None = None
