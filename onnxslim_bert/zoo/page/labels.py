"""Where the names of points go so that none hides another."""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

LINE = 14.0  # pixels from one line of text to the next
NEAR = 10.0  # pixels from a point to its name; beyond twice that, a line leads from one to the other
RING, TURNS = 8.0, 16
MARK = 12.0  # pixels across a point
WIDE, CAPITAL, NARROW = 12.0, 8.6, 6.6  # of a character at 11.5 pixels, more than common sans-serif fonts take


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        """Whether `other` lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )

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
    """A rectangle for the name of each point, in its turn; None when there is no room in `frame`.

    points [n] (x, y) and widths [n] of their names, in pixels. No rectangle meets another or a point. As far as it can
    be had, none is nearer to another point than to its own, and none meets `avoid` or a line to another name.
    """
    marks = [Box.around(x, y, MARK, MARK) for x, y in points]
    wishes, placed, leads = list(avoid), list[Box](), list[Box]()
    for (x, y), width in zip(points, widths, strict=True):
        best, least = None, math.inf
        for distance, box in _around(x, y, width, frame):
            if least <= distance:
                break  # all that follow are further away
            if frame.holds(box) and not any(map(box.meets, [*marks, *placed])):
                own = math.dist((x, y), box.nearest(x, y))
                mistaken = sum(math.dist(other, box.nearest(*other)) < own for other in points)
                hidden = sum(map(box.meets, wishes)) + 3 * sum(map(box.meets, leads))
                crossed = sum(dot.meets(other) for dot in _lead(x, y, box) for other in placed)
                cost = distance + 12 * (hidden + crossed + 5 * mistaken)
                if cost < least:
                    best, least = box, cost
        if best is None:
            return None
        placed.append(best)
        leads += _lead(x, y, best)
    return placed


def is_far(x: float, y: float, box: Box) -> bool:
    """Whether a name needs a line that leads to its point."""
    return math.dist((x, y), box.nearest(x, y)) > 2 * NEAR


def _around(x: float, y: float, width: float, frame: Box) -> Iterator[tuple[float, Box]]:
    """Rectangles around a point and how far away they are, the nearest first, those to the right before the others."""
    reach = math.dist((frame.left, frame.top), (frame.right, frame.bottom))
    distance = NEAR
    while distance < reach:
        for turn in range(TURNS):
            angle = (turn + 1) // 2 * (-1) ** turn * 2 * math.pi / TURNS
            right, down = math.cos(angle), math.sin(angle)
            # the middle of the side that faces the point, where that is to one side of it
            middle = x + right * distance + _within(2 * right, -1, 1) * width / 2
            inside = _within(middle, frame.left + width / 2, frame.right - width / 2)
            yield distance, Box.around(inside, y + down * distance + _within(2 * down, -1, 1) * LINE / 2, width, LINE)
        distance += RING


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _lead(x: float, y: float, box: Box) -> list[Box]:
    """The line from a point to its name, as small squares along it; none where the name is near."""
    return along((x, y), box.nearest(x, y))[2:] if is_far(x, y, box) else []


def along(start: tuple[float, float], end: tuple[float, float]) -> list[Box]:
    """A line, as small squares."""
    steps = max(1, round(math.dist(start, end) / 4))
    across, down = (end[0] - start[0]) / steps, (end[1] - start[1]) / steps
    return [Box.around(start[0] + across * step, start[1] + down * step, 2, 2) for step in range(steps)]
