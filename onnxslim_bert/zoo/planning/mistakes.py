"""The mistakes in a zoo file, all of them at once, each with its line."""

from onnxslim_bert.errors import SlimError
from onnxslim_bert.zoo.planning.toml_lines import Place, lines_of

LONGEST, MOST = 300, 100  # characters of a mistake, and mistakes that are told at once


class ZooError(SlimError):
    """A zoo file that cannot be run. mistakes: one line each, like "zoo.toml:12: no recipe 'smal'"."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes

    @property
    def lines(self) -> tuple[str, ...]:
        """The mistakes."""
        return self.mistakes


class Mistakes:
    """Collects the mistakes in a zoo file, to tell all at once. text: its content, valid TOML. name: of the file."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._found: dict[tuple[Place, str], None] = {}  # a mistake that several jobs make is one

    def add(self, place: Place, message: str) -> None:
        """Note what is wrong at `place`, once."""
        self._found[place, message] = None

    def at(self, place: Place) -> bool:
        """Whether something is wrong there already."""
        return any(place == found for found, _ in self._found)

    def check(self) -> None:
        """Raise ZooError when there are any, in the order of their lines."""
        if self._found:
            told = list(self._found)[:MOST]
            lines = lines_of(self._text, {place for place, _ in told})
            found = sorted({(lines[place], " ".join(message.split())[:LONGEST]) for place, message in told})
            more = [f"{self._name}: and {len(self._found) - MOST} more"] * (len(self._found) > MOST)
            raise ZooError((*(f"{self._name}:{line}: {message}" for line, message in found), *more))
