"""What a search has measured and built so far, kept on disk so that it can be taken up again."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxslim_bert.output import write_atomically
from onnxslim_bert.pruning.sensitivity import Sensitivity
from onnxslim_bert.pruning.sites import Site
from onnxslim_bert.search.choose import Alternative, Options
from onnxslim_bert.search.costs import Costs, Saving


@dataclass(frozen=True)
class Candidate:
    """A model that was built by `recipe`. predicted, damage: on held-back rows, by the tables and measured."""

    recipe: str
    file: Path
    nbytes: int
    predicted: float
    damage: float


class State:
    """A folder with the tables and the models of one search.

    key: everything that decides them; a folder of another key is emptied. Every change is on disk when it returns.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._file = folder / "state.json"
        held = self._read()
        if held.get("key") != key:
            shutil.rmtree(folder, ignore_errors=True)
            held = {"key": key}
        folder.mkdir(exist_ok=True)
        self._held = held

    @property
    def options(self) -> Options | None:
        """The tables, once they are measured."""
        return _options(self._held["options"]) if "options" in self._held else None

    def keep_options(self, options: Options) -> None:
        """Remember the tables."""
        self._keep("options", _written(options))

    def candidate(self, recipe: str) -> Candidate | None:
        """The model that `recipe` made, if it was built."""
        held = self._held.get("candidates", {}).get(recipe)
        found = None if held is None else Candidate(**held | {"file": self.folder / held["file"]})
        return found if found is not None and found.file.exists() else None

    def keep_candidate(self, candidate: Candidate) -> None:
        """Remember a model whose file is in the folder."""
        held = asdict(candidate) | {"file": candidate.file.name}
        self._keep("candidates", self._held.get("candidates", {}) | {candidate.recipe: held})

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep(self, name: str, value: Any) -> None:
        self._held[name] = value
        write_atomically(self._file, json.dumps(self._held).encode(), overwrite=True)

    def _read(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return held


def _written(options: Options) -> dict[str, Any]:
    sensitivities = [
        {"site": asdict(one.site), "order": one.order.tolist(), "damage": list(one.damage.items())}
        for one in options.sensitivities
    ]
    return asdict(options) | {"sensitivities": sensitivities}


def _options(held: dict[str, Any]) -> Options:
    sensitivities = [
        Sensitivity(
            Site(**one["site"] | {"layers": tuple(one["site"]["layers"])}),
            np.array(one["order"]),
            {int(count): damage for count, damage in one["damage"]},
        )
        for one in held["sensitivities"]
    ]
    savings = {name: Saving(**saving) for name, saving in held["costs"]["savings"].items()}
    alternatives = {
        name: [Alternative(**one | {"gone": tuple(one["gone"])}) for one in held[name]]
        for name in ("layers", "embeddings", "tokens")
    }
    costs = Costs(**held["costs"] | {"savings": savings})
    return Options(sensitivities, costs, **alternatives, method=held["method"])
