"""A student of given sizes, or of another kind, as a recipe: the passes that make it of its teacher and train it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from onnxslim_bert.errors import PassError
from onnxslim_bert.job.main_recipe import Quantization, main_recipe
from onnxslim_bert.job.student_sizes import Sizes, on_the_way, read_sizes, sizes_of
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.passes.distill import Distill
from onnxslim_bert.passes.student import Kind
from onnxslim_bert.recipes.int8 import CANONICAL, FIRST_TOKEN, FUSED
from onnxslim_bert.recipes.recipe import Recipe

RATES = {"static": 0.005, "bilstm": 0.003}  # of kinds that know nothing yet; others take `distill`'s own
IN_BOTTLENECKS = 1e-4  # of matrices that were fitted in them, which the usual rate moves away


@dataclass(frozen=True)
class Lesson:
    """How a student is trained and written.

    texts, minutes: as `distill` takes them; 0 leaves it to its defaults. tokens: rows of the word table that are kept;
    0 for all. int8: quantize the student for this machine. stages: how many trainings share texts or minutes, each
    twice as long as the one before; all but the last are of models of sizes in between.
    """

    texts: int = 0
    minutes: float = 0.0
    tokens: int = 0
    int8: bool = False
    stages: int = 1


def student_recipe(student: str, teacher: Encoder, lesson: Lesson) -> Recipe:
    """The recipe that makes `student` of a teacher and trains it.

    student: sizes of a transformer, as layers=3,hidden=192,heads=6,neurons=768; or static or bilstm, with options of
    the pass `student` behind it, as static,width=48.
    Example: "layers=3,heads=6" of 6 layers is
    canonicalize?,fuse?,drop-layers{drop=3},prune{heads=6},first-token?,distill.

    Raises PassError for a student that is not smaller, or cannot be made.
    """
    kind, _, options = student.partition(",")
    if lesson.stages > 1 and "=" not in kind:
        raise PassError(f"--stages {lesson.stages}: a student like {kind!r} is not cut from the model; leave it out")
    trimmed = [f"trim-vocabulary{{tokens={lesson.tokens}}}"] * bool(lesson.tokens)
    budget = {"texts": lesson.texts, "minutes": lesson.minutes}
    if "=" in kind:
        recipe = Recipe.parse(",".join(_transformer(read_sizes(student), sizes_of(teacher), trimmed, lesson)))
        return Recipe((*recipe.steps, *main_recipe(Quantization("static")).steps)) if lesson.int8 else recipe
    if kind not in get_args(Kind):
        kinds = ", ".join(sorted(get_args(Kind)))
        raise PassError(f"--student {kind!r} is no kind ({kinds}), nor sizes like layers=3,heads=6,neurons=768")
    if lesson.int8:
        raise PassError(f"--int8 quantizes layers of a transformer; a {kind} student stays float32: leave it out")
    made = f"student{{kind={kind}{',' if options else ''}{options}}}"
    trained = _step("distill", {"words": "true", "rate": RATES[kind], **budget})
    return Recipe.parse(",".join([CANONICAL, *trimmed, made, trained]))


def _transformer(sizes: Sizes, teacher: Sizes, trimmed: Sequence[str], lesson: Lesson) -> list[str]:
    """The steps that cut a teacher to these sizes and train it, by way of `lesson.stages` - 1 models in between.

    Each is cut from the one before, as that was trained, and all are trained towards the teacher: what the layers and
    matrices of the one in between have learnt, the student starts from (Sun et al. 2020, MobileBERT's progressive
    transfer, https://arxiv.org/abs/2004.02984; Mirzadeh et al. 2020, https://arxiv.org/abs/1902.03393, whose assistant
    is the teacher of the next besides: ours is at hand itself).
    """
    steps, now = [FUSED], teacher
    stages = on_the_way(teacher, sizes, lesson.stages) if lesson.stages > 1 else [sizes]
    for stage, then in enumerate(stages):
        share = 2**stage / (2**lesson.stages - 1)
        steps += [*_cuts(now, then), *(trimmed if not stage else ()), *([FIRST_TOKEN] if then is stages[-1] else ())]
        rate = {"rate": IN_BOTTLENECKS} if then.bottleneck else {}
        steps.append(_step("distill", rate | _budget(lesson, share)) + "?" * (then is not stages[-1]))
        now = then
    return steps


def _budget(lesson: Lesson, share: float) -> dict[str, float]:
    """The options of `distill` for this share of the lesson."""
    if lesson.minutes or share == 1:
        return {"texts": lesson.texts, "minutes": round(share * lesson.minutes, 4)}
    return {"texts": round(share * (lesson.texts or Distill.texts))}


def _cuts(theirs: Sizes, sizes: Sizes) -> list[str]:
    """The passes that cut a model of sizes `theirs` to others; widths of layers are checked where they are cut."""
    for name in ("layers", "hidden"):
        asked, found = getattr(sizes, name), getattr(theirs, name)
        if asked > found:
            raise PassError(f"--student {name}={asked}: the model has {found}, and a student is cut from it")
    dropped = theirs.layers - (sizes.layers or theirs.layers)
    same = (size for size in ("heads", "neurons") if getattr(sizes, size) == getattr(theirs, size))
    widths = {name: getattr(sizes, name) for name in ("heads", "neurons")} | dict.fromkeys(same, 0)
    cuts = [f"drop-layers{{drop={dropped}}}"] * bool(dropped)
    cuts += [_step("prune", widths)] * any(widths.values())
    if sizes.hidden not in (0, theirs.hidden):
        cuts.append(_step("prune-hidden", {"width": sizes.hidden}))
    cuts += [_step("bottleneck", {"width": sizes.bottleneck})] * bool(sizes.bottleneck)
    if not cuts:
        raise PassError(f"--student: these are the sizes of the model itself; give fewer than {theirs.layers} layers")
    return cuts


def _step(name: str, options: Mapping[str, str | float]) -> str:
    """A pass as recipe text, with the options that are not 0."""
    given = ",".join(f"{key}={value}" for key, value in options.items() if value)
    return f"{name}{{{given}}}" if given else name
