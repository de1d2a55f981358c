"""What a model file is: where it comes from, the encoder in it, its costs, and what a pass could do with it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxslim_bert import __version__
from onnxslim_bert.errors import ModelError, NoEncoderError, PassError, SlimError
from onnxslim_bert.inspection.advice import Advice, advise
from onnxslim_bert.inspection.costs import Cost, measure_costs
from onnxslim_bert.inspection.encoder_facts import EncoderFacts, encoder_facts
from onnxslim_bert.inspection.file_facts import FileFacts, read_facts
from onnxslim_bert.inspection.problems import find_problems
from onnxslim_bert.inspection.sharing import Shared, find_shared
from onnxslim_bert.model.attention_cores import unread
from onnxslim_bert.model.dense import dense_layers
from onnxslim_bert.model.narrow_weights import narrow_weights
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.recipes.recipe import Recipe
from onnxslim_bert.rewriting.contract import Context


@dataclass(frozen=True)
class Anatomy:
    """What was found in an encoder. problems: what stands in the way of its use or of a pass, a sentence each."""

    facts: EncoderFacts
    costs: tuple[Cost, ...]
    shared: tuple[Shared, ...]
    problems: tuple[str, ...]
    passes: tuple[Advice, ...]


@dataclass(frozen=True)
class Inspection:
    """A model file. encoder: None when there is none that can be read, and then `reason` says why.

    batch, seq: sentences and tokens of each, for which FLOPs are counted.
    """

    file: FileFacts
    batch: int
    seq: int
    encoder: Anatomy | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready document."""
        return {"onnxslim_bert": __version__, **asdict(self)}


def inspect(path: Path, *, batch: int = 1, seq: int = 128, sha256: bool = False) -> Inspection:
    """Inspect the file at `path`. Raises ModelError when it is not ONNX."""
    file = read_facts(path, sha256=sha256)
    try:
        return Inspection(file, batch, seq, _take_apart(path, file, batch, seq), "")
    except NoEncoderError as error:
        return Inspection(file, batch, seq, None, str(error) + ("" if unread(file.operators) else _offer(path)))
    except ModelError as error:
        return Inspection(file, batch, seq, None, str(error).removeprefix(f"{path}: ") + unread(file.operators))


def _take_apart(path: Path, file: FileFacts, batch: int, seq: int) -> Anatomy:
    model = Model.load(path)
    stored = {name: constant.values for name, constant in model.constants().items()}
    narrow = narrow_weights(model.graph)
    grows = sum(weight.wide - weight.nbytes for weight in narrow)
    made = {Canonicalize.name: Canonicalize().apply(model, Context())}
    fused = model.clone()
    made[Fuse.name] = Fuse().apply(fused, Context())
    shared = find_shared(model, stored)
    costs = measure_costs(model, fused, shared, narrow, batch, seq)
    problems = tuple(find_problems(file, model, shared, stored, narrow))
    return Anatomy(
        encoder_facts(fused, narrow), costs, shared, problems, advise(fused, made, _ran(file), file.nbytes + grows)
    )


def _offer(path: Path) -> str:
    """What can be done without an encoder."""
    model = Model.load(path)
    try:
        Canonicalize().apply(model, Context())
        return f"; `quantize` takes {len(dense_layers(model))} dense layers to int8 all the same"
    except SlimError:
        return ""


def _ran(file: FileFacts) -> list[str]:
    """The passes that wrote the file, from its own notes."""
    try:
        recipe = Recipe.parse(file.producer.slimmed.get("recipe", ""))
    except PassError:  # none, or one of another version
        return []
    return [step.action.name for step in recipe.steps]
