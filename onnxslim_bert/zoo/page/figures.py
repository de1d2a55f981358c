"""The numbers that figures.js draws for one model; the charts that they go into are in charts.py."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from onnxslim_bert.job.search.sensitivity import LayerSensitivity
from onnxslim_bert.zoo.page.layout import layout
from onnxslim_bert.zoo.page.panels import Panel, panels
from onnxslim_bert.zoo.page.points import undrawn
from onnxslim_bert.zoo.page.trades import Trade
from onnxslim_bert.zoo.page.wording import alike

WIDTHS = {"wide": 510, "narrow": 292}  # pixels between the axes; the page takes the one that fits


def figures(trade: Trade, targets: Sequence[str]) -> dict[str, Any]:
    """The frontier and the layers of one model. targets: all of the run, in the order of their colours."""
    study = trade.source.study
    return {
        "name": trade.source.name,
        "panels": [_panel(panel) for panel in panels(trade, targets)],
        "undrawn": ", ".join(f"{row.recipe} · {row.target}" for row in undrawn(trade)),
        "layers": _layers(study.layers if study else ()),
        "reason": study.reason if study else "not studied in this run",
    }


def _panel(panel: Panel) -> dict[str, Any]:
    last_on_top = sorted(panel.points, key=lambda point: point.best)
    points = [asdict(point) | {"said": point.said} for point in last_on_top]
    layouts = {name: asdict(layout(panel, width)) for name, width in WIDTHS.items()}
    return asdict(panel) | {"points": points, "layouts": layouts}


def _layers(layers: Sequence[LayerSensitivity]) -> list[dict[str, Any]]:
    """Two bars for each layer: its damage when it alone is int8, and the damage when it alone is spared.

    "worst" marks the greatest of the first, and the smallest of the second: the layer most worth sparing.
    """
    alone, spared = [each.alone for each in layers], [each.spared for each in layers]
    bars = [
        [{"damage": value, "shown": text, "worst": value == worst} for value, text in zip(values, texts, strict=True)]
        for values, texts, worst in (
            (alone, alike(alone), max(alone, default=0.0)),
            (spared, alike(spared), min(spared, default=0.0)),
        )
    ]
    return [
        {"layer": each.layer, "alone": one, "spared": other} for each, one, other in zip(layers, *bars, strict=True)
    ]
