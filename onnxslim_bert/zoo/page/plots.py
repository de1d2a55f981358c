"""A search as pictures: the frontier of the models that it built, and what each layer's heads and neurons are worth.

Drawn as Vega-Lite by Altair, and made SVG or PNG by vl-convert, without a browser.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import structured
from onnxslim_bert.errors import DataError, one_line
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.rewriting.pruning.sites import Site
from onnxslim_bert.wording import si
from onnxslim_bert.zoo.documents import read_document

FORMATS = (".svg", ".png")
WIDTH, HEIGHT, SCALE = 460, 280, 2  # pixels of a chart; of PNG as many times


@dataclass(frozen=True)
class SiteDamage:
    """The measured damage of a layer's heads or neurons, by how many of them are left."""

    site: Site
    damage: dict[int, float]


@dataclass(frozen=True)
class Sensitivities:
    """The part of a search's tables that is drawn; empty where nothing was narrowed."""

    sensitivities: tuple[SiteDamage, ...] = ()


def plot_search(place: Path, form: str) -> bytes:
    """The picture of the search whose report, a JSON document, lies at `place`. form: a suffix of FORMATS.

    Raises DataError for a document that is no report of a search.
    """
    import vl_convert

    spec = chart(*read_search(place))
    if form == ".svg":
        return str(vl_convert.vegalite_to_svg(spec)).encode()
    return bytes(vl_convert.vegalite_to_png(spec, scale=SCALE))


def read_search(place: Path) -> tuple[SearchResult, Sensitivities]:
    """What a search found, and its sensitivities, from its report. Raises DataError."""
    path, document = read_document(place)
    found = document.get("found")
    if not isinstance(found, dict):
        raise DataError(f"{path} is no report of a search: needed that of `onnxslim slim --target-speedup` or the like")
    try:
        result = structured(SearchResult, found)
        return result, structured(Sensitivities, dict(result.tables))
    except DataError as error:
        raise DataError(f"{path} is no report of a search: {one_line(error)}") from error


def chart(result: SearchResult, tables: Sensitivities) -> dict[str, Any]:
    """Vega-Lite of the frontier and, below it, of each kind of unit."""
    import altair as alt

    points = alt.Chart(alt.Data(values=list(_points(result))))
    x, y = alt.X("speedup:Q", title="times the source's speed").scale(zero=False), alt.Y("damage:Q", title="damage")
    marks = points.mark_point(size=90, opacity=1).encode(
        x=x, y=y, fill=alt.condition("datum.chosen", alt.value("#1f77b4"), alt.value("white"))
    )
    texts = points.mark_text(align="left", dx=9, fontSize=11).encode(x=x, y=y, text="said:N")
    joined = points.mark_line(strokeWidth=4, opacity=0.2).encode(x=x, y=y)
    title = f"frontier; filled: chosen; drop in points on {result.judged}"
    charts: list[Any] = [alt.layer(joined, marks, texts).properties(width=WIDTH, height=HEIGHT, title=title)]
    for kind in dict.fromkeys(one.site.kind for one in tables.sensitivities):
        lines = alt.Chart(alt.Data(values=list(_lines(kind, tables)))).mark_line(point=True)
        charts.append(
            lines.encode(
                x=alt.X("kept:Q", title=f"{kind} left, %"),
                y=alt.Y("damage:Q", title="damage"),
                color=alt.Color("layer:N", title="layer"),
            ).properties(width=WIDTH, height=HEIGHT, title=f"sensitivity of {kind}, layer by layer")
        )
    spec: dict[str, Any] = alt.vconcat(*charts).resolve_scale(color="independent").to_dict()
    return spec


def _points(result: SearchResult) -> Iterator[dict[str, Any]]:
    for point in result.frontier:
        said = f"{si(point.nbytes, 'B')}, drop {point.drop:.2f}"
        chosen = point.recipe == result.chosen.recipe
        yield {"speedup": point.speedup, "damage": point.damage, "said": said, "chosen": chosen}


def _lines(kind: str, tables: Sensitivities) -> Iterator[dict[str, Any]]:
    for one in tables.sensitivities:
        if one.site.kind == kind:
            layer = ", ".join(map(str, one.site.layers))
            for left, damage in sorted(one.damage.items()):
                yield {"layer": layer, "kept": 100 * left / one.site.units, "damage": damage}
