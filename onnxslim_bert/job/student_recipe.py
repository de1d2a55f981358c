"""A student of given sizes, or of another kind, as a recipe: the passes that make it of its teacher and train it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import get_args

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.passes.student import Kind
from onnxslim_bert.recipes.int8 import CANONICAL, FIRST_TOKEN, FUSED
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.rewriting.options import nearest

RATES = {"static": 0.005, "bilstm": 0.003}  # of kinds that know nothing yet; others take `distill`'s own


@dataclass(frozen=True)
class Sizes:
    """Those of a transformer student; 0 is the teacher's. heads, neurons: of each layer. hidden: of the stream."""

    layers: int = 0
    hidden: int = 0
    heads: int = 0
    neurons: int = 0


@dataclass(frozen=True)
class Lesson:
    """How a student is trained and written.

    texts, minutes: as `distill` takes them; 0 leaves it to its defaults. tokens: rows of the word table that are kept;
    0 for all. int8: quantize the student for this machine.
    """

    texts: int = 0
    minutes: float = 0.0
    tokens: int = 0
    int8: bool = False


def student_recipe(student: str, teacher: Encoder, lesson: Lesson) -> Recipe:
    """The recipe that makes `student` of a teacher and trains it.

    student: sizes of a transformer, as layers=3,hidden=192,heads=6,neurons=768; or static or bilstm, with options of
    the pass `student` behind it, as static,width=48.
    Example: "layers=3,heads=6" of 6 layers is
    canonicalize?,fuse?,drop-layers{drop=3},prune{heads=6},first-token?,distill.

    Raises PassError for a student that is not smaller, or cannot be made.
    """
    kind, _, options = student.partition(",")
    trimmed = [f"trim-vocabulary{{tokens={lesson.tokens}}}"] * bool(lesson.tokens)
    budget = {"texts": lesson.texts, "minutes": lesson.minutes}
    if "=" in kind:
        cuts = _cuts(read_sizes(student), teacher)
        recipe = Recipe.parse(",".join([FUSED, *cuts, *trimmed, FIRST_TOKEN, _step("distill", budget)]))
        return Recipe((*recipe.steps, *main_recipe(Quantization("static")).steps)) if lesson.int8 else recipe
    if kind not in get_args(Kind):
        kinds = ", ".join(sorted(get_args(Kind)))
        raise PassError(f"--student {kind!r} is no kind ({kinds}), nor sizes like layers=3,heads=6,neurons=768")
    if lesson.int8:
        raise PassError(f"--int8 quantizes layers of a transformer; a {kind} student stays float32: leave it out")
    made = f"student{{kind={kind}{',' if options else ''}{options}}}"
    trained = _step("distill", {"words": "true", "rate": RATES[kind], **budget})
    return Recipe.parse(",".join([CANONICAL, *trimmed, made, trained]))


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


def _cuts(sizes: Sizes, teacher: Encoder) -> list[str]:
    """The passes that cut a teacher to these sizes; widths of layers are checked where they are cut."""
    theirs = Sizes(len(teacher.layers), teacher.hidden)
    for name in ("layers", "hidden"):
        asked, found = getattr(sizes, name), getattr(theirs, name)
        if asked > found:
            raise PassError(f"--student {name}={asked}: the model has {found}, and a student is cut from it")
    dropped = theirs.layers - (sizes.layers or theirs.layers)
    widths = {name: getattr(sizes, name) for name in ("heads", "neurons")}
    cuts = [f"drop-layers{{drop={dropped}}}"] * bool(dropped)
    cuts += [_step("prune", widths)] * any(widths.values())
    if sizes.hidden not in (0, theirs.hidden):
        cuts.append(_step("prune-hidden", {"width": sizes.hidden}))
    if not cuts:
        raise PassError(f"--student: these are the sizes of the model itself; give fewer than {theirs.layers} layers")
    return cuts


def _step(name: str, options: Mapping[str, str | float]) -> str:
    """A pass as recipe text, with the options that are not 0."""
    given = ",".join(f"{key}={value}" for key, value in options.items() if value)
    return f"{name}{{{given}}}" if given else name
