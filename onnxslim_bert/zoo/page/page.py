"""The page: its text, its numbers and its scripts in one file that asks nothing of a network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import onnxslim_bert
from onnxslim_bert.errors import OutputError
from onnxslim_bert.wording import duration
from onnxslim_bert.zoo.page import wording
from onnxslim_bert.zoo.page.charts import library, specs
from onnxslim_bert.zoo.page.details import details
from onnxslim_bert.zoo.page.document import RunDocument
from onnxslim_bert.zoo.page.figures import figures
from onnxslim_bert.zoo.page.jobs import NUMBERS, WORDS, Line, lines
from onnxslim_bert.zoo.page.packed import packed
from onnxslim_bert.zoo.page.points import SHAPES, colour
from onnxslim_bert.zoo.page.reduce import reductions
from onnxslim_bert.zoo.page.tiles import tiles
from onnxslim_bert.zoo.page.trades import headline, missed, shortfalls, speedup, trades, untimed, without_result

LIMIT = 3_000_000  # bytes of the page
SCRIPTS = ("data.js", "figures.js", "table.js", "details.js")  # of one scope


@dataclass(frozen=True)
class Page:
    """html: the whole file. left_out: what did not fit, in one sentence; "" when everything did."""

    html: str
    left_out: str


def render(document: RunDocument) -> Page:
    """The report as one HTML file below LIMIT bytes, without what a reader misses least where it would be larger.

    Raises OutputError when that is not enough.
    """
    script = library()
    for left_out, run in reductions(document.run):
        page = Page(_html(replace(document, run=run), script, left_out), left_out)
        if len(page.html.encode()) < LIMIT:
            return page
    raise OutputError(
        f"the report of {len(document.run.rows)} jobs would be larger than {LIMIT / 1e6:g} MB: choose some with --model"
    )


def _html(document: RunDocument, script: str, left_out: str) -> str:
    """The page with everything in it that `document` has."""
    run = document.run
    found, targets = trades(run), sorted({row.target for row in run.rows}, key=lambda name: (name != "cpu", name))
    jobs = lines(found)
    sources = {source.name: source for source in run.sources}
    numbers = {(line.row.model, line.row.recipe, line.row.target): line.number for line in jobs}
    environment = _environment()
    job, table = environment.get_template("job.html"), environment.get_template("rows.html")
    data = {
        "specs": specs(),
        "models": [figures(trade, targets) for trade in found],
        "rows": table.render(jobs=jobs, columns=len(NUMBERS)),
        "jobs": [str(job.render(details(line.row, sources[line.row.model]))) for line in jobs],
    }
    scripts = [_text("theme.js"), script, "{\n" + "\n".join(map(_text, SCRIPTS)) + "}\n"]
    page = environment.get_template("page.html").render(
        document=document,
        run=run,
        version=onnxslim_bert.__version__,
        headline=headline(run),
        without_result=without_result(run),
        tiles=tiles(run.rows, found),
        trades=found,
        shortfalls=[(numbers[row.model, row.recipe, row.target], row, reason) for row, reason in shortfalls(run)],
        untimed=untimed(run),
        jobs=len(jobs),
        words=WORDS,
        columns=NUMBERS,
        choices=[_choices(jobs, index) for index in range(len(WORDS))],
        targets=[(name, colour(index), SHAPES[index % len(SHAPES)]) for index, name in enumerate(targets)],
        left_out=left_out,
        data=packed(data),
        style=_text("style.css"),
        scripts=scripts,
        hashes=" ".join(map(_hash, scripts)),
    )
    return str(page).encode("utf-8", "replace").decode()  # half a surrogate pair in a text is shown as ?


def _environment() -> Any:
    """Templates whose every value is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("onnxslim_bert", "zoo/page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"wording": wording, "duration": duration, "speedup": speedup, "missed": missed}
    return environment


def _text(name: str) -> str:
    return resources.files("onnxslim_bert.zoo.page").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """A script by its content, as a Content-Security-Policy names it. https://www.w3.org/TR/CSP3/#grammardef-hash-source"""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _choices(jobs: Sequence[Line], index: int) -> list[str]:
    """What a column of words holds, for its filter."""
    return list(dict.fromkeys(str(line.keys[index]) for line in jobs))
