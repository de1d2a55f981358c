"""The mistakes in a zoo file, all of them at once, each with its line."""

from onnxslim_bert.errors import SlimError
from onnxslim_bert.zoo.planning.toml_lines import Place, line_of, places

LONGEST = 300  # characters of a mistake


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
    """Gathers what is wrong with the valid TOML `text` of the file called `name`."""

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
            lines = places(self._text)
            found = {(line_of(lines, place), " ".join(message.split())[:LONGEST]) for place, message in self._found}
            raise ZooError(tuple(f"{self._name}:{line}: {message}" for line, message in sorted(found)))
