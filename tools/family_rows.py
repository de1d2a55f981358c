"""What tools/family_trial.py found: a row for each model and verb, and the default beside ranges from run time."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RUN_TIME = ("dynamic", "peer")
NOISE = 1e-4  # of a mean cosine, and of a least one


@dataclass(frozen=True)
class Row:
    """What one verb did to one model. state: written, refused, failed or unopened. cosine: the least of a row."""

    model: str
    verb: str
    state: str
    cosine: float | None = None
    mean: float | None = None
    difference: float | None = None
    note: str = ""

    def __str__(self) -> str:
        numbers = (
            "" if self.cosine is None else f"cos {self.mean:.5f}, least {self.cosine:.5f}  diff {self.difference:.1e}"
        )
        return f"{self.model:<32}{self.verb:<17}{self.state:<10}{numbers:<43}{self.note}"


class Rows:
    """Rows in a file, a line of JSON each, added as they are found: a trial that was broken off goes on behind them.

    file: None keeps them in memory alone. A last line that was cut off is left out.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.found: list[Row] = []
        lines = file.read_text().splitlines(keepends=True) if file is not None and file.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        self.found = [Row(**json.loads(line)) for line in whole]
        if file is not None and len(whole) < len(lines):
            file.write_text("".join(whole))
        self.known = {(row.model, row.verb) for row in self.found}

    def missing(self, model: str, verbs: Sequence[str]) -> list[str]:
        """Those of `verbs` of which `model` has no row."""
        return [verb for verb in verbs if (model, verb) not in self.known]

    def add(self, row: Row) -> None:
        """Keep one row more."""
        self.found.append(row)
        self.known.add((row.model, row.verb))
        if self.file is not None:
            with self.file.open("a") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")


def beside(rows: Sequence[Row]) -> Iterator[str]:
    """The default beside ranges found at run time, ours and the peer's: a line a model, and one that counts.

    Example: "mpnet  mean .99931 .99930 .99902  least .99801 .99788 .99645", in the order default, dynamic, peer.
    """
    known = {(row.model, row.verb): row for row in rows if row.mean is not None}
    models = [model for model, verb in known if verb == "default" and any((model, each) in known for each in RUN_TIME)]
    if not models:
        return
    yield f"{'':<32}{'mean: default':<15}{'dynamic':<10}{'peer':<10}{'least: default':<16}{'dynamic':<10}{'peer':<10}"
    lost = {"mean": 0, "least": 0}
    for model in models:
        three = [known.get((model, verb)) for verb in ("default", *RUN_TIME)]
        means = [None if row is None else row.mean for row in three]
        least = [None if row is None else row.cosine for row in three]
        marks = []
        for name, (ours, *others) in (("mean", means), ("least", least)):
            if ours is None or ours < max(x for x in others if x is not None) - NOISE:
                marks.append(name)
                lost[name] += 1
        cells = "".join(
            f"{_figure(x):<{width}}" for x, width in zip([*means, *least], (15, 10, 10, 16, 10, 10), strict=True)
        )
        yield f"{model:<32}{cells}{' '.join(f'{mark} worse' for mark in marks)}".rstrip()
    yield (
        f"{len(models)} models; the default's mean is worse by more than {NOISE:g} on {lost['mean']}, its least row on "
        f"{lost['least']}"
    )


def _figure(x: float | None) -> str:
    return "-" if x is None else f"{x:.5f}"
