"""The [[models]] of a zoo file: which files each names, and what they are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.errors import DataError
from onnxslim_bert.zoo.planning.find_models import Matches, find_models, identity, names_for
from onnxslim_bert.zoo.planning.keys import MODEL, Layer, read_table
from onnxslim_bert.zoo.planning.mistakes import Mistakes
from onnxslim_bert.zoo.planning.readers import file_name
from onnxslim_bert.zoo.planning.toml_lines import Place

NOTHING = Matches([], [])


@dataclass(frozen=True)
class ModelEntry:
    """One [[models]] entry of a zoo file.

    sources: the model files that belong to it: those that its path matches, without those that a later entry matches
    too. written: files that it passes over, as in `Matches`.
    """

    place: Place
    settings: Layer
    sources: tuple[str, ...]
    written: tuple[str, ...] = ()


def read_models(tables: Any, folder: Path, mistakes: Mistakes) -> list[ModelEntry]:
    """The [[models]] with the files of each: a file belongs to the last entry that matches it."""
    if not isinstance(tables, list) or not tables:
        mistakes.add(("models",), 'no models: needed at least one [[models]] with path = "model.onnx"')
        return []
    read = [read_table(values, MODEL, ("models", index), mistakes) for index, values in enumerate(tables)]
    matches = [_matches(settings, ("models", index), folder, mistakes) for index, settings in enumerate(read)]
    owner = {identity(source): index for index, (sources, _) in enumerate(matches) for source in sources}
    entries = []
    for index, (settings, (sources, written)) in enumerate(zip(read, matches, strict=True)):
        own = {identity(source): source for source in sources if owner[identity(source)] == index}
        entry = ModelEntry(("models", index), settings, tuple(own.values()), tuple(written))
        if sources and not own:
            mistakes.add(
                (*entry.place, "path"), "every file that it matches belongs to a later [[models]]; leave it out"
            )
        if "name" in settings and len(sources) > 1:
            mistakes.add((*entry.place, "name"), f"name is for one file, and path matches {len(sources)}")
        entries.append(entry)
    return entries


def _matches(settings: Layer, place: Place, folder: Path, mistakes: Mistakes) -> Matches:
    if "path" not in settings:
        mistakes.add(place, "no path: needed a model file, a glob, a folder or a URL")
        return NOTHING
    try:
        return find_models(settings["path"].value, folder)
    except DataError as error:
        mistakes.add(settings["path"].place, str(error))
    except OSError as error:
        mistakes.add(settings["path"].place, f"cannot be looked at ({error.strerror})")
    return NOTHING


def names_of(entries: Sequence[ModelEntry], mistakes: Mistakes) -> dict[str, str]:
    """The name of each model. Two models of one name, and names that no file can have, are mistakes."""
    place = {source: entry.place for entry in entries for source in entry.sources}
    given = {
        entry.sources[0]: entry.settings["name"].value
        for entry in entries
        if "name" in entry.settings and len(entry.sources) == 1
    }
    names = names_for(list(place), given)
    first: dict[str, str] = {}
    for source, name in names.items():
        try:
            file_name(name)
        except ValueError as error:
            mistakes.add((*place[source], "path"), f"give name: needed {error}; {source} would be {name!r}")
        other = first.setdefault(name.casefold(), source)
        if other != source:
            mistakes.add((*place[source], "name"), f"name {name!r} is that of {other}, too; give {source} another")
    return names
