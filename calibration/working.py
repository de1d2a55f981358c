"""The settings that all work of one job shares: threads, seed, tokenizer, cache, and where progress is reported."""

from dataclasses import dataclass

from onnxslim_bert.calibration.cache import Cache
from onnxslim_bert.calibration.tokenizer import Tokenizer
from onnxslim_bert.progress import Progress


@dataclass(frozen=True)
class Working:
    """The settings that a job hands to everything that runs models or reads rows.

    max_length: tokens kept of a calibration or evaluation row, special tokens included.
    threads: of each ONNX Runtime session.
    seed: of random samples of rows, of the made-up ids that latency is measured on, and of intervals.
    tokenizer: reads texts; None where there are none.
    inputs: the models' inputs that the user names by role, like `ids=in0,mask=in1`.
    cache: keeps statistics for other jobs that would measure the same; None measures each time.
    unfinished: keeps the state of long work, so that a later run goes on where this one was stopped; None keeps none.
    progress: is told how far long work is.
    """

    max_length: int = 128
    threads: int = 1
    seed: int = 0
    tokenizer: Tokenizer | None = None
    inputs: str = ""
    cache: Cache | None = None
    unfinished: Cache | None = None
    progress: Progress | None = None
