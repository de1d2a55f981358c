"""The targets of a search: how fast, how small and how accurate the model has to be."""

from dataclasses import dataclass, replace

from onnxslim_bert.errors import PassError

MARGIN = 1.02  # by which targets are aimed beyond when a model missed them


@dataclass(frozen=True)
class Targets:
    """What the model that a search finds has to reach; None asks for nothing, and at least one is given.

    speedup: at least so many times the source's speed, above 1. nbytes: bytes of the file at most, above 0; after gzip
    where it is `packed`. drop: most points of the task metric that may be lost, 0 or more. Raises PassError for
    anything else.
    """

    speedup: float | None = None
    nbytes: float | None = None
    drop: float | None = None
    packed: bool = False

    def __post_init__(self) -> None:
        if self.speedup is None and self.nbytes is None and self.drop is None:
            raise PassError("a search needs a target: --target-speedup, --target-size, --max-download or --max-drop")
        if self.speedup is not None and self.speedup <= 1:
            raise PassError(f"--target-speedup {self.speedup:g} is no speed-up; give more than 1")
        if self.nbytes is not None and self.nbytes <= 0:
            raise PassError(f"{self.size_option} {self.nbytes:g} bytes is no size; give for instance 10MB")
        if self.drop is not None and self.drop < 0:
            raise PassError(f"--max-drop {self.drop:g} is negative; give the points that may be lost, 1.0 for instance")

    @property
    def size_option(self) -> str:
        """By what `nbytes` is asked for."""
        return "--max-download" if self.packed else "--target-size"

    def beyond(self, asked: "Targets", speedup: float, nbytes: float) -> "Targets":
        """These targets, further by the factor by which a model made for them misses those `asked`, and MARGIN.

        Example: it is 3.8 times as fast and 4 is asked for: it was aimed at 4, and the next one is at 4.29.
        """
        aim = self.speedup and asked.speedup and self.speedup * max(1, MARGIN * asked.speedup / speedup)
        size = self.nbytes and asked.nbytes and self.nbytes * min(1, asked.nbytes / MARGIN / nbytes)
        return replace(self, speedup=aim, nbytes=size)

    def met_by(self, speedup: float, nbytes: float, drop: float) -> bool:
        """Whether a model with these measurements reaches every target."""
        return (
            (self.speedup is None or speedup >= self.speedup)
            and (self.nbytes is None or nbytes <= self.nbytes)
            and (self.drop is None or drop <= self.drop)
        )
