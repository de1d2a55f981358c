"""A recipe is a sequence of passes with their options, written as text."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from onnxslim_bert.errors import PassError
from onnxslim_bert.passes import PASSES
from onnxslim_bert.rewriting.contract import Pass
from onnxslim_bert.rewriting.options import nearest, read_option, types_of

STEP = re.compile(r"\s*([A-Za-z0-9_-]+)\s*(?:\{([^{}]*)\})?\s*(\?)?\s*")


@dataclass(frozen=True)
class Step:
    """One pass of a recipe. optional: the pass may change nothing; a recipe writes it with a `?`, as in fuse?."""

    action: Pass
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.action}{'?' if self.optional else ''}"


@dataclass(frozen=True)
class Recipe:
    """A sequence of passes, in the order in which they run."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> "Recipe":
        """The recipe written as `name{option=value,...},name?,...`; `str(recipe)` writes it back.

        A `?` marks a pass that may find nothing to do. Raises PassError for what it cannot read, naming the nearest
        pass or option.
        """
        steps: list[Step] = []
        position = 0
        while True:
            match = STEP.match(text, position)
            if match is None:
                raise PassError(
                    f"recipe: cannot read {text[position:]!r}; write it like fuse,quantize-static{{method=mse}}"
                )
            steps.append(Step(_pass(match[1], match[2] or ""), bool(match[3])))
            position = match.end()
            if position == len(text):
                return cls(tuple(steps))
            if text[position] != ",":
                raise PassError(f"recipe: a comma was needed before {text[position:]!r}")
            position += 1

    def __str__(self) -> str:
        return ",".join(map(str, self.steps))

    @property
    def wants_calibration(self) -> bool:
        """Whether a pass may ask for statistics of calibration rows."""
        return self.measures or any(type(step.action).wants is not Pass.wants for step in self.steps)

    @property
    def measures(self) -> bool:
        """Whether a pass tries things out on calibration rows."""
        return any(step.action.measures for step in self.steps)

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """The batch and the length to which the last pass that fixes shapes fixes them; None where none does."""
        fixed = [step.action.shape for step in self.steps if step.action.shape != (None, None)]
        return fixed[-1] if fixed else (None, None)

    def at_length(self, seq: int) -> "Recipe":
        """The same recipe, whose passes that fix a length fix it to `seq`."""
        at = [
            dataclasses.replace(step, action=step.action.at_length(seq)) if step.action.shape[1] else step
            for step in self.steps
        ]
        return Recipe(tuple(at))


def _pass(name: str, options: str) -> Pass:
    if name not in PASSES:
        raise PassError(f"no pass {name!r}{nearest(name, PASSES)}; `onnxslim passes` lists them")
    kind = PASSES[name]
    types = types_of(kind)
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        key = key.replace("-", "_")
        if not equals:
            raise PassError(f"{name}: option {item!r} has no value; write {item}=VALUE")
        if key not in types:
            raise PassError(f"{name} has no option {key!r}{nearest(key, types)}")
        if key in values:
            raise PassError(f"{name}: {key} is given twice")
        values[key] = read_option(name, key, value, types[key])
    return kind(**values)
