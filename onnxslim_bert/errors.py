"""What a user can act on: one line, an exit code, no traceback."""

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

# Control characters but tabs and new lines, marks that turn the direction of writing, halves of surrogate pairs.
ARMED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class SlimError(Exception):
    """Base of every error that the command line prints as one line."""

    exit_code: ClassVar[int] = 2

    @property
    def lines(self) -> tuple[str, ...]:
        """What to print: one line, but for errors that hold several mistakes."""
        return (one_line(self, None),)


class ModelError(SlimError):
    """Not valid ONNX, or not an encoder that is recognised: says at which node and why."""


class CrashError(ModelError):
    """A model ends ONNX Runtime, and the process that runs it."""


class BoundsError(SlimError):
    """A model takes more memory or time to run than its size explains; whoever runs it gives up."""


class NoEncoderError(ModelError):
    """No transformer encoder whose roles are known; what needs none still works."""


class FaultError(SlimError):
    """A fault of this program, found where it does no harm: said as such, and nobody else's to mend."""

    exit_code = 1


class DataError(SlimError):
    """Calibration or evaluation data missing, malformed or overlapping."""


class PassError(SlimError):
    """A pass cannot do what it was asked on this model or target."""


class NothingChangedError(PassError):
    """A pass that was asked for found nothing to do. name: of the pass; reason: what it saw."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name} changed nothing: {self.reason} (--allow-noop accepts that)"


class OutputError(SlimError):
    """A result cannot be written where it was asked."""


class StorageError(SlimError):
    """The folder or object store that keeps results cannot be used."""


class ProviderError(SlimError):
    """A provider is missing, refuses the model, or leaves nodes to another one."""

    exit_code = 5


class GateError(SlimError):
    """A budget was missed. found: lines for people on what was measured on the way."""

    def __init__(self, said: str, found: Sequence[str] = ()) -> None:
        super().__init__(said)
        self.found = tuple(found)


class AccuracyGateError(GateError):
    """The task metric or the agreement missed its budget."""

    exit_code = 3


class LatencyGateError(GateError):
    """The speed-up missed its budget."""

    exit_code = 4


class CoverageGateError(GateError):
    """The provider takes less of the model than it did."""

    exit_code = 5


class SizeGateError(GateError):
    """The file missed its budget."""

    exit_code = 6


def raised_from(error: BaseException) -> Iterator[BaseException]:
    """The error, the one that it was raised from or while handling, and so on: each once, in a circle too.

    Python breaks circles of contexts, but not those with a cause in them.
    """
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        seen.append(following)
        yield following
        following = following.__cause__ or following.__context__


def one_line(error: BaseException | str, most: int | None = 300) -> str:
    """What an error says, in one printable line of bearable length."""
    return printable(" ".join(str(error).split())[:most])


def printable(text: str) -> str:
    """The text as a terminal may have it: control characters other than new lines are written out, like "\\x1b"."""
    kept = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return "".join(kept)


def as_line(text: str) -> str:
    """`printable`, and new lines written out, too: a name that holds one does not begin a line that looks like ours."""
    return printable(text).replace("\n", "\\n")


def disarmed(text: str) -> str:
    """The text as a page, a Markdown or an XML file may have it: what `ARMED` holds is written out, like "\\x1b".

    Other characters that are not seen stay, such as the joiners that words of some languages need.
    """
    return ARMED.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def shown(value: object) -> str:
    """A value as an error quotes it: in Python's spelling, and not longer than 60 letters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole numbers of more than 4,300 digits
        text = "a number of thousands of digits"
    except RecursionError:
        text = "brackets in brackets"
    return text if len(text) <= 60 else f"{text[:57]}..."
