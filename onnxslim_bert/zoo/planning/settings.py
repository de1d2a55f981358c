"""The settings of one job: those of the recipe before those of the model before the defaults."""

from typing import Any

from onnxslim_bert.zoo.planning.keys import Layer
from onnxslim_bert.zoo.planning.toml_lines import Place


class Settings:
    """The settings of one job. Where several layers set a key, the last one holds; `used` notes what was read.

    Example: layers defaults, model and recipe: a recipe's `seed` hides the seed of the defaults.
    """

    def __init__(self, layers: tuple[Layer, ...], used: set[Place]) -> None:
        self._all = {key: setting for layer in layers for key, setting in layer.items()}
        self._used = used

    def take(self, key: str, default: Any = None) -> Any:
        """The value of `key`, which is used from now on."""
        if key not in self._all:
            return default
        self._used.add(self._all[key].place)
        return self._all[key].value

    def take_all(self) -> None:
        """Note all of them as used, so that none is reported as a key that nothing reads."""
        self._used.update(setting.place for setting in self._all.values())

    def look(self, key: str) -> Any:
        """The value of `key`, which may stay unused."""
        return self._all[key].value if key in self._all else None

    def place(self, key: str, default: Place = ()) -> Place:
        """Where `key` was written."""
        return self._all[key].place if key in self._all else default
