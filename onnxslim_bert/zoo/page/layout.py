"""The layout of a picture at one width: its height, and the place of each point's name."""

from dataclasses import dataclass
from itertools import pairwise

from onnxslim_bert.zoo.page.labels import Box, along, fitted, is_far, place, text_width
from onnxslim_bert.zoo.page.panels import Panel

HEIGHT, TALLER = 300, 60  # pixels between the axes, and how many more until all names have room
NAME = 190  # pixels that a name may take in the picture; the tooltip has all of it


@dataclass(frozen=True)
class Label:
    """A name at (x, y), the end of it that `align` says, and the line from (from_x, from_y) there to its point."""

    text: str
    align: str
    x: float
    y: float
    from_x: float
    from_y: float
    to_x: float
    to_y: float
    far: bool
    missed: bool


@dataclass(frozen=True)
class Layout:
    """Pixels between the axes, and the name of every point."""

    width: int
    height: int
    labels: tuple[Label, ...]


def layout(panel: Panel, width: int) -> Layout:
    """Place the names in a picture of this width: HEIGHT pixels high, and TALLER more until all names have room."""
    names = [fitted(point.name, NAME) + " ✗" * point.missed for point in panel.points]
    height, boxes = HEIGHT - TALLER, None
    while boxes is None:
        height += TALLER
        where = [panel.pixels(point.x, point.y, width, height) for point in panel.points]
        frame, avoid = Box(0, 0, width, height), _lines(panel, width, height)
        boxes = place(where, [text_width(name) for name in names], frame, avoid)
    labels = (
        _label(name, box, at, point.missed)
        for name, box, point, at in zip(names, boxes, panel.points, where, strict=True)
    )
    return Layout(width, height, tuple(labels))


def _lines(panel: Panel, width: int, height: int) -> list[Box]:
    """The intervals, and the lines that join the best."""
    ends = [[panel.pixels(each.x, end, width, height) for end in (each.high, each.low)] for each in panel.points]
    found = [Box(x - 2, top, x + 2, bottom) for (x, top), (_, bottom) in ends]
    places = [(each["target"], panel.pixels(each["x"], each["y"], width, height)) for each in panel.joined]
    for (target, start), (other, end) in pairwise(places):
        found += along(start, end) if target == other else []
    return found


def _label(name: str, box: Box, point: tuple[float, float], missed: bool) -> Label:
    """The text begins or ends where its point is, as it may be narrower than its rectangle."""
    x, y = point
    align = "left" if box.left > x else "right" if box.right < x else "center"
    at = {"left": box.left, "right": box.right, "center": (box.left + box.right) / 2}[align]
    return Label(name, align, at, (box.top + box.bottom) / 2, *box.nearest(x, y), x, y, is_far(x, y, box), missed)
