"""The charts of the report as Vega-Lite: each is in the page once, and is drawn with the numbers of any model.

Vega-Lite, through Altair, of the three libraries that were weighed: its JavaScript is 0.9 MB (Bokeh 1.3 MB, Plotly
4.8 MB), it draws SVG that takes its colours from the page's CSS, dark or light, and says every mark to screen readers.
"""

import functools
import importlib
from typing import Any

from onnxslim_bert.errors import DataError

INK, MUTED, RULE, WARN = "var(--ink)", "var(--muted)", "var(--rule)", "var(--bad)"
FONT = "system-ui, sans-serif"


def check_installed() -> None:
    """Raise DataError, with what to install, where a library that makes the page is missing."""
    for name in ("altair", "jinja2", "vl_convert"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise DataError(f"a report needs {name}: pip install 'onnxslim-bert[report]'") from error


def specs() -> dict[str, Any]:
    """The charts by name, as Vega-Lite; data sets are empty and parameters placeholders, which the page fills in."""
    return {"frontier": _frontier(), "layers": _layers()}


@functools.cache
def library() -> str:
    """Vega-Lite and all that it needs as one script, which leaves `vegaEmbed` in the window."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _frontier() -> dict[str, Any]:
    """Points with their intervals and names; lines join the best points of each target."""
    import altair as alt

    points, labels, joined = (alt.Data(name=name) for name in ("points", "labels", "joined"))
    ends = {name: alt.param(name=name, value=1) for name in ("x_low", "x_high", "y_low", "y_high")}
    titles = {name: alt.param(name=name, value="") for name in ("x_title", "y_title")}
    ticks = alt.param(name="ticks", value=[1])
    x = alt.X("x:Q").scale(type="log", domain=[ends["x_low"], ends["x_high"]], nice=False)
    x = x.axis(title=None, values=alt.ExprRef("ticks"), format="~g", labelFlush=False, labelOverlap="greedy")
    y = alt.Y("y:Q").scale(domain=[ends["y_low"], ends["y_high"]], nice=False, zero=False)
    y = y.axis(title=None, tickCount=6)
    shade = alt.Color("colour:N", scale=None)
    tooltip = [
        alt.Tooltip(f"{name}:N", title=title)
        for name, title in {
            "name": "job",
            "size": "size",
            "latency": "latency",
            "faster": "speed-up",
            "quality": "quality",
            "outcome": "outcome",
        }.items()
    ]
    line = alt.Chart(joined).mark_line(strokeWidth=5, opacity=0.22, strokeCap="round", aria=False)
    whisker = alt.Chart(points).mark_rule(strokeWidth=1.2, opacity=0.55, aria=False).encode(y2="high:Q")
    lead = alt.Chart(labels).transform_filter("datum.far").mark_rule(color=MUTED, strokeWidth=0.8, aria=False)
    mark = alt.Chart(points).mark_point(size=90, strokeWidth=2, opacity=1, filled=False)
    text = alt.Chart(labels).mark_text(align=_of("align"), baseline="middle", fontSize=11.5, aria=False)
    return _finished(
        alt.layer(
            line.encode(x=x, y=y, color=shade, detail="target:N"),
            whisker.encode(x=x, y=alt.Y("low:Q"), color=shade),
            lead.encode(
                x=_pixel("from_x"), y=_pixel("from_y"), x2=alt.X2Value(_of("to_x")), y2=alt.Y2Value(_of("to_y"))
            ),
            mark.encode(
                x=x,
                y=y,
                color=shade,
                shape=alt.Shape("shape:N", scale=None),
                fill=alt.condition("datum.best", "colour:N", alt.value("var(--paper)"), scale=None),
                tooltip=tooltip,
                description=alt.Description("said:N"),
            ),
            text.encode(
                x=_pixel("x"),
                y=_pixel("y"),
                text="text:N",
                color=alt.condition("datum.missed", alt.value(WARN), alt.value(INK)),
            ),
            _title("x_title", "width", "height + 36", "right"),
            _title("y_title", 0, -16, "left"),
        )
        .add_params(*ends.values(), *titles.values(), ticks)
        .properties(width=1, height=1)
    )


def _layers() -> dict[str, Any]:
    """One bar for each layer, its number beside it."""
    import altair as alt

    y = alt.Y("layer:O").axis(title=None, domain=False, ticks=False, labelPadding=6)
    x = alt.X("damage:Q").axis(title=None, tickCount=4, format="~g").scale(zero=True)
    bars = alt.Chart(alt.Data(name="layers"))
    shade = alt.condition("datum.worst", alt.value("var(--target-1)"), alt.value("var(--target-0)"))
    return _finished(
        alt.layer(
            bars.mark_bar(height={"band": 0.66}).encode(
                x=x, y=y, color=shade, tooltip=[alt.Tooltip("layer:O"), alt.Tooltip("shown:N", title="damage")]
            ),
            bars.mark_text(align="left", dx=5, fontSize=11.5, color=INK, aria=False).encode(x=x, y=y, text="shown:N"),
            _title("y_title", 0, -14, "left"),
        )
        .add_params(alt.param(name="y_title", value=""))
        .properties(width=1, height={"step": 20})
    )


def _title(name: str, x: int | str, y: int | str, align: Any) -> Any:
    """The text of a parameter at a place in pixels, which may be an expression."""
    import altair as alt

    places = [place if isinstance(place, int) else alt.ExprRef(place) for place in (x, y)]
    mark = alt.Chart(alt.InlineData(values=[{}])).mark_text(align=align, fontSize=12, fontWeight=600, color=MUTED)
    return mark.encode(x=alt.XValue(places[0]), y=alt.YValue(places[1]), text=alt.TextValue(alt.ExprRef(name)))


def _pixel(name: str) -> Any:
    import altair as alt

    return (alt.XValue if name.endswith("x") else alt.YValue)(_of(name))


def _of(name: str) -> Any:
    import altair as alt

    return alt.ExprRef(f"datum.{name}")


def _finished(chart: Any) -> dict[str, Any]:
    axes = {"labelColor": MUTED, "labelFontSize": 11.5, "gridColor": RULE, "domainColor": RULE, "tickColor": RULE}
    chart = chart.configure(
        background="transparent", font=FONT, padding={"left": 4, "top": 26, "right": 10, "bottom": 4}
    )
    spec: dict[str, Any] = chart.configure_axis(**axes).configure_view(stroke=None).to_dict()
    return spec
