"""Which models a path in a zoo file names, and what each is called."""

import glob
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from onnxslim_bert.errors import DataError
from onnxslim_bert.recipes.provenance import is_written
from onnxslim_bert.zoo.documents import STATE

OUTPUTS = ("models", "objects", "tmp")


def is_url(source: str) -> bool:
    """Whether a model is opened by fsspec, and not as a file of this machine."""
    return "://" in source


class Matches(NamedTuple):
    """The models that a path of a zoo file names.

    models: paths or URLs. written: files beside them that are left out, because onnxslim wrote them.
    """

    models: list[str]
    written: list[str]


def find_models(path: str, folder: Path) -> Matches:
    """The models that `path` names, sorted: a file, a glob (`**` too), every .onnx of a folder, or a URL.

    folder: relative paths are relative to it. A glob or a folder passes over files that onnxslim has written; such a
    file is taken when the path names it itself. A URL is asked what is there only when it has a `*`. A file that cannot
    be read is no mistake here: its jobs become failed rows of the run. Raises DataError when nothing is there.
    """
    if is_url(path):
        return Matches(_listed(path) if "*" in path else [path], [])
    place = folder / path
    if place.is_dir():
        found = sorted(place.glob("*.onnx"))
        needed = f"no .onnx in this folder; {path}/**/*.onnx looks below it"
    elif place.is_file() or not glob.has_magic(path):
        found, needed = [place] * place.is_file(), "no such file or folder"
    else:
        found = sorted(match for match in _matched(path, folder) if not any(map(is_output, match.parents)))
        needed = "no file matches"
    written = [] if place.is_file() else [model for model in found if is_written(model)]
    if not found:
        raise DataError(f"{place}: {needed}")
    if found == written:
        raise DataError(
            f"{place}: onnxslim-bert wrote what is there: give its source, or {written[0].name} by its name"
        )
    passed = set(written)
    return Matches([str(model) for model in found if model not in passed], list(map(str, written)))


def _matched(pattern: str, folder: Path) -> Iterator[Path]:
    """The files that a pattern matches, from `folder` on. `**` enters no link, which may lead back; `*` is no dot."""
    parts = Path(pattern).parts
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    above, asked = folder.joinpath(*parts[:first]), parts[first:]
    wants_hidden = any(part.startswith(".") for part in asked)
    try:
        for match in above.glob("/".join(asked)):
            hidden = any(part.startswith(".") for part in match.relative_to(above).parts)
            if match.is_file() and (wants_hidden or not hidden):
                yield match
    except ValueError as error:
        raise DataError(f"{pattern}: no pattern of files: {error}") from error


def is_output(folder: Path) -> bool:
    """Whether `zoo run` writes models into this folder, which lies beside its state."""
    return folder.name in OUTPUTS and (folder.parent / STATE).is_file()


def identity(source: str) -> str:
    """What tells one file from others: equal for two paths, or a path and a link, that lead to the same file."""
    return source if is_url(source) else str(Path(source).resolve())


def names_for(sources: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """A name for each of `sources`, unique as far as names of folders allow; case does not count.

    The name is `given`, or the file's name without ".onnx", with as many folders in front as tell it from the others.
    Example: a/model.onnx and b/model.onnx are "a-model" and "b-model"; either alone is "model".
    """
    parts = {source: _parts(source) for source in sources}
    depth = dict.fromkeys(sources, 1)
    while True:
        found = {source: given.get(source) or "-".join(parts[source][-depth[source] :]) for source in sources}
        times = Counter(name.casefold() for name in found.values())
        unclear = [
            source
            for source, name in found.items()
            if source not in given and times[name.casefold()] > 1 and depth[source] < len(parts[source])
        ]
        if not unclear:
            return found
        for source in unclear:
            depth[source] += 1


def _parts(source: str) -> list[str]:
    """Folders and stem, each as it can be part of a file's name."""
    place = Path(urlsplit(source).path if is_url(source) else source)
    named = [re.sub(r"[^\w.-]+", "-", part).strip("-.") for part in (*place.parent.parts, place.stem)]
    return [part for part in named if part] or ["model"]


def _listed(url: str) -> list[str]:
    """What a glob in a URL matches, as URLs."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        found = sorted(system.unstrip_protocol(match) for match in system.glob(path))
    # whatever the many file systems raise: one is not installed, refuses access or does not answer
    except Exception as error:
        raise DataError(f"{url}: cannot be listed ({error})") from error
    if not found:
        raise DataError(f"{url}: nothing matches")
    return found
