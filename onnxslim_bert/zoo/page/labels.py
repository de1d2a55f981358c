"""Place the names of a picture's points so that none hides another, each near its point."""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

LINE = 14.0  # pixels from one line of text to the next
NEAR = 10.0  # pixels from a point to its name; beyond twice that, a line leads from one to the other
RING, TURNS = 8.0, 16
TRIED = 3 * TURNS  # free places, the nearest first, among which the best is taken
MARK = 12.0  # pixels across a point
WIDE, CAPITAL, NARROW = 12.0, 8.6, 6.6  # of a character at 11.5 pixels, more than common sans-serif fonts take


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two share more than an edge."""
        left, top, right, bottom = other
        return self.left < right and left < self.right and self.top < bottom and top < self.bottom

    def holds(self, other: "Box") -> bool:
        """Whether `other` lies inside."""
        left, top, right, bottom = other
        return self.left <= left and right <= self.right and self.top <= top and bottom <= self.bottom

    @classmethod
    def around(cls, x: float, y: float, width: float, height: float) -> "Box":
        """The rectangle with this centre."""
        return cls(x - width / 2, y - height / 2, x + width / 2, y + height / 2)

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of it that is nearest to (x, y)."""
        return _within(x, self.left, self.right), _within(y, self.top, self.bottom)


def fitted(text: str, pixels: float) -> str:
    """`text` on one line, cut to what fits."""
    line = " ".join(text.split())
    if text_width(line) <= pixels:
        return line
    while line and text_width(f"{line}…") > pixels:
        line = line[:-1]
    return f"{line.rstrip()}…"


def text_width(text: str) -> float:
    """Pixels that a name may take."""
    return sum(_character(character) for character in text) + 2


def _character(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF" or character in "mwMW@%✗…":
        return WIDE
    return CAPITAL if character.isupper() else NARROW


def place(
    points: Sequence[tuple[float, float]], widths: Sequence[float], frame: Box, avoid: Iterable[Box] = ()
) -> list[Box] | None:
    """A rectangle for the name of each point, one point after the other; None when one finds no room in `frame`.

    points [n]: (x, y), and widths [n] of their names, both in pixels. No rectangle overlaps another or a point. Of the
    TRIED nearest free places, the first is taken that suits best: before all, no other point should be nearer to the
    name than its own; then, the name should cross no line, neither in `avoid` nor from an earlier name to its point.
    """
    taken = [Box.around(x, y, MARK, MARK) for x, y in points]
    lines, placed = list(avoid), list[Box]()
    for (x, y), width in zip(points, widths, strict=True):
        boxes = _around(x, y, width, frame)
        free = list(islice((box for box in boxes if not any(map(box.meets, taken))), TRIED))
        if not free:
            return None
        box = min(free, key=lambda box: (_is_mistaken(box, (x, y), points), any(map(box.meets, lines))))
        placed.append(box)
        taken.append(box)
        lines += along((x, y), box.nearest(x, y)) if is_far(x, y, box) else []
    return placed


def _is_mistaken(box: Box, own: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    """Whether another of `points` is nearer to the name than its own."""
    return any(math.dist(other, box.nearest(*other)) < math.dist(own, box.nearest(*own)) for other in points)


def is_far(x: float, y: float, box: Box) -> bool:
    """Whether a name needs a line that leads to its point."""
    return math.dist((x, y), box.nearest(x, y)) > 2 * NEAR


def along(start: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """A line, as small squares."""
    steps = max(1, round(math.dist(start, end) / 4))
    across, down = (end[0] - start[0]) / steps, (end[1] - start[1]) / steps
    return [Box.around(start[0] + across * step, start[1] + down * step, 2, 2) for step in range(steps)]


def _around(x: float, y: float, width: float, frame: Box) -> Iterator[Box]:
    """Rectangles in `frame` around a point, the nearest first, those to the right before the others."""
    reach = math.dist(frame[:2], frame[2:])
    for ring in range(int((reach - NEAR) / RING) + 1):
        for turn in range(TURNS):
            angle = (turn + 1) // 2 * (-1) ** turn * 2 * math.pi / TURNS
            right, down = math.cos(angle), math.sin(angle)
            # the middle of the side that faces the point, where that is to one side of it
            middle = x + right * (NEAR + ring * RING) + _within(2 * right, -1, 1) * width / 2
            inside = _within(middle, frame.left + width / 2, frame.right - width / 2)
            box = Box.around(inside, y + down * (NEAR + ring * RING) + _within(2 * down, -1, 1) * LINE / 2, width, LINE)
            if frame.holds(box):
                yield box


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
