"""Sizes of a transformer student, and of models between it and its teacher."""

from dataclasses import asdict, dataclass, fields, replace

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.rewriting.options import nearest
from onnxslim_bert.wording import plural


@dataclass(frozen=True)
class Sizes:
    """Those of a transformer; 0 is the teacher's.

    heads, neurons: of each layer. hidden: of the stream. bottleneck: of the stream inside of each layer, where that is
    narrower.
    """

    layers: int = 0
    hidden: int = 0
    heads: int = 0
    neurons: int = 0
    bottleneck: int = 0

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in asdict(self).items() if size)


def read_sizes(text: str) -> Sizes:
    """Sizes from a text like layers=3,heads=6. Raises PassError for what it cannot read."""
    known, sizes = [size.name for size in fields(Sizes)], Sizes()
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in known:
            raise PassError(f"--student has no size {name!r}{nearest(name, known)}; needed some of {', '.join(known)}")
        if not (value.isdecimal() and value.isascii() and len(value) < 10 and int(value)):
            raise PassError(f"--student {name}={value!r} is no whole number from 1")
        if getattr(sizes, name):
            raise PassError(f"--student: {name} is given twice")
        sizes = replace(sizes, **{name: int(value)})
    return sizes


def sizes_of(encoder: Encoder) -> Sizes:
    """Those of an encoder: heads and neurons of the layer that has most; 0 neurons where none is recognised."""
    neurons = max(0 if layer.up is None else layer.up.d_out for layer in encoder.layers)
    return Sizes(len(encoder.layers), encoder.hidden, max(layer.heads for layer in encoder.layers), neurons)


def on_the_way(teacher: Sizes, student: Sizes, count: int) -> list[Sizes]:
    """The sizes of `count` models, the last of them `student`, each smaller than the one before by the same factors.

    Those in between have no bottleneck. Example: from 12 layers to 3 in 2 are 6 and 3. Raises PassError where two of
    them would be the same.
    """
    asked = {name: size for name, size in asdict(student).items() if size and name != "bottleneck"}
    if not asked:
        raise PassError(f"--stages {count} needs a student with fewer layers, channels, heads or neurons: name some")
    theirs = {name: getattr(teacher, name) or size for name, size in asked.items()}
    shares = {name: size / theirs[name] for name, size in asked.items()}
    found = [
        Sizes(**{name: round(theirs[name] * share ** (done / count)) for name, share in shares.items()})
        for done in range(count + 1)
    ]
    if len(set(found)) <= count:
        raise PassError(
            f"--stages {count} needs {plural(count - 1, 'model')} of sizes between {found[0]} and {found[-1]}, and "
            "there are not so many; give fewer stages"
        )
    return [*found[1:-1], student]
