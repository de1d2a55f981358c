"""Propose a zoo file for the models in a folder."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from onnxslim_bert.calibration.loading import is_named
from onnxslim_bert.errors import DataError, printable
from onnxslim_bert.progress import Progress
from onnxslim_bert.zoo.planning.data_checks import check_there
from onnxslim_bert.zoo.planning.find_encoders import FoundEncoder, LeftOut, find_encoders
from onnxslim_bert.zoo.planning.plan import ZooPlan
from onnxslim_bert.zoo.planning.zoo_file import parse_zoo

DEFAULT = "reviews"
REVIEWS = """\
# The built-in set: short film and product reviews with a sentiment each. Any text calibrates better than none, but its
# labels mean something to sentiment models only: name texts of your own here, and labelled ones with data.
"""
TEXT = """\
# Run it: onnxslim zoo run {name} -o out

[defaults]  # for every model and recipe that says nothing else
targets = ["cpu"]  # also openvino, qnn, coreml, nnapi; the last three with seq = 128, the tokens in a row
{about}calib = {calib}
# data = "reviews"  # evaluation rows: by default the validation split of a named calib
# memory = "4GB"  # of one job, which is stopped beyond it
# timeout = "30min"  # 2h by default

# A job that misses a budget fails the run.
# [defaults.budgets]
# max-drop = 1.0  # points of the metric, against the original
# min-agreement = 99.0  # percent of rows with the original's class
# min-speedup = 1.5  # the original's latency over that of the result
# max-size = "24MB"
# max-download = "20MB"  # after gzip

[recipes.int8]  # what `onnxslim quantize` does
mode = "static"

# [recipes.small]  # a recipe of passes, as for `onnxslim slim -p`
# passes = "canonicalize?,fuse,prune-ffn{{keep=0.75}},quantize-static"

# [run]
# time = true  # false: sources and results are not timed
# study = true  # false: the sensitivity of the sources' layers is not measured
"""


@dataclass(frozen=True)
class Proposal:
    """The text of a zoo file, what it plans, and which .onnx files were left out of it."""

    text: str
    plan: ZooPlan
    left_out: tuple[LeftOut, ...]


def propose(
    folder: Path, at: Path, calib: str | None = None, progress: Progress | None = None, *, unreadable: bool = False
) -> Proposal:
    """Make the text of a zoo file, to be saved at `at`, for the encoders below `folder`; `read_zoo` accepts it.

    calib: the calibration data, a named set or a file relative to the current folder; `reviews` by default. unreadable:
    whether files that cannot be read are models of it, too, whose jobs fail and say why; otherwise they are left out.
    Raises DataError when the data are not there, or when there is no encoder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: needed one with ONNX models")
    calib = calib or DEFAULT
    check_there(calib, "calibration")
    found, left = find_encoders(folder, progress)
    if unreadable:
        broken = [FoundEncoder(item.path, item.tokenizer) for item in left if item.tokenizer]
        found = sorted([*found, *broken], key=lambda model: (model.path.parent, model.path.name))
        left = [item for item in left if not item.tokenizer]
    if not found:
        reasons = "; ".join(f"{item.path}: {item.reason}" for item in left[:3]) or "no .onnx file"
        raise DataError(f"{folder}: no encoder found ({reasons})")
    text = TEXT.format(
        name=at.name,
        calib=_string(calib if is_named(calib) else _relative(Path(calib), at)),
        about=REVIEWS if calib == DEFAULT else "",
    )
    text += "".join(f"\n{entry}" for entry in _entries(found, at))
    if left:
        text += "\n# Left out:\n"
        text += "".join(
            f"#   {_string(printable(_relative(item.path, at)))}: {_string(item.reason)[1:-1]}\n" for item in left
        )
    return Proposal(text, parse_zoo(text, at), tuple(left))


def _entries(found: Sequence[FoundEncoder], at: Path) -> Iterator[str]:
    """The [[models]] entries: one glob for a folder of several encoders and no other .onnx file, else one a model."""
    for (folder, tokenizer), group in groupby(found, lambda model: (model.path.parent, model.tokenizer)):
        paths = [model.path for model in group]
        whole = len(paths) > 1 and paths == sorted(folder.glob("*.onnx"))
        pattern = glob.escape(_relative(folder, at))
        named = [f"{pattern}/*.onnx"] if whole else [_relative(path, at) for path in paths]
        for path in named:
            yield f"[[models]]\npath = {_string(path)}" + f"  # {len(paths)} models" * whole + "\n"
            if tokenizer != folder:
                yield f"tokenizer = {_string(_relative(tokenizer, at))}\n"


def _relative(path: Path, at: Path) -> str:
    """`path` as it is written in a file at `at`; whole, where they have no folder in common."""
    try:
        return Path(os.path.relpath(path, at.parent)).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _string(text: str) -> str:
    """A TOML string: what JSON escapes, TOML does too, and deletion besides."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
