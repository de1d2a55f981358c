"""What a model's outputs are: decided by the graph and the configuration beside it; names count where these do not say.

One output, or the pair of a reader of passages, is taken for one of seven kinds:

classes    [rows, classes], logits of one class a row; or the numbers of the classes themselves, [rows]
labels     [rows, labels], logits of labels that hold or not, each by itself
score      [rows] or [rows, 1], one number a row
embedding  [rows, width], or [rows, tokens, width] to be pooled
tokens     [rows, tokens, classes], logits of one class a token
masked     [rows, tokens, vocabulary], logits of the word behind a mask
spans      two of [rows, tokens], logits of where an answer begins and ends
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import DataError, ModelError
from onnxslim_bert.graph.wire import read_skeleton
from onnxslim_bert.model.model_config import ModelConfig
from onnxslim_bert.proof.output_axes import Axis, Output, hidden_width, reads_parts, seen_outputs
from onnxslim_bert.proof.tasks.table import TASKS, Kind, needs

# How an architecture's name ends -> what it answers.
ARCHITECTURES: Mapping[str, Kind] = {
    "ForSequenceClassification": "classes",
    "ForNextSentencePrediction": "classes",
    "ForMultipleChoice": "score",
    "ForTokenClassification": "tokens",
    "ForQuestionAnswering": "spans",
    "ForQuestionAnsweringSimple": "spans",
    "Reader": "spans",
    "ForMaskedLM": "masked",
    "ForPreTraining": "masked",
    "WithLMHeadModel": "masked",
    **dict.fromkeys(("Model", "WithProjection", "QuestionEncoder", "ContextEncoder"), "embedding"),
}
# Words in names, which count only where nothing else decides.
EMBEDDING_WORDS = ("embed", "pool", "hidden", "state")
LEAST_VOCABULARY = 1000  # words, where config.json does not say how many


@dataclass(frozen=True)
class Reading:
    """What the outputs of a model are taken for.

    outputs: the name of the one that counts; of spans two, the starts and the ends.
    kind: what it is taken for. by: what decided that.
    pooling: how the states of tokens become one vector.
    whole: the states are those of patches or frames, as many as the model makes; all of them count.
    pooled: the vector of a text is made of token states here. others: outputs that a task could be judged by, too.
    """

    outputs: tuple[str, ...]
    kind: Kind
    by: str
    pooling: str = "mean"
    whole: bool = False
    pooled: bool = False
    others: tuple[str, ...] = ()

    @property
    def output(self) -> str:
        """The names of the outputs, as they are printed."""
        return " and ".join(self.outputs)


def read_model(
    path: Path, mask: Array, answers: Mapping[str, Array], config: ModelConfig, task: str = "", output: str = ""
) -> Reading:
    """What the outputs of the model at `path` are taken for.

    answers: its outputs for one batch, by name. mask: of that batch, [batch, seq].
    task: a name in TASKS, or "" to find it. output: the name of the one to take, "" to find it. Raises DataError for a
    task that the outputs do not serve or an output that is not there, ModelError for outputs that serve no task.
    """
    graph = read_skeleton(path)[0].graph if path.is_file() else onnx.GraphProto()
    seen = seen_outputs(graph, answers, mask.shape[1])
    try:
        hidden = config.hidden or hidden_width(graph, answers)
        reading = read_outputs(seen, config, hidden, task, output)
        others = () if output else tuple(name for name in heads(seen, hidden) if name not in reading.outputs)
        pooled = reading.kind == "embedding" and len(seen[reading.output].axes) == 3
        return replace(reading, whole=reads_parts(graph), pooled=pooled, others=others)
    except ModelError as error:
        found = ", ".join(f"{name} {values.dtype}{list(values.shape)}" for name, values in answers.items())
        raise ModelError(f"{path} answers {found}: {error}") from error


def read_outputs(
    outputs: Mapping[str, Output], config: ModelConfig, hidden: int, task: str = "", output: str = ""
) -> Reading:
    """What `outputs`, by name, are taken for: as `task` says, else config.json, else their own shapes and types.

    Only those that `output` names count, where it names any.

    hidden: width of the encoder, 0 where it is not known. Raises as `read_model` does.
    """
    if output:
        outputs = _named(outputs, output)
    if task:
        for kind in TASKS[task].kinds:
            named = _fitting(outputs, kind, config, hidden, task)
            if named:
                return Reading(named, kind, f"the task {task!r}", config.pooling or "mean")
        found = ", ".join(f"{name} {list(output.axes)}" for name, output in outputs.items())
        raise DataError(f"task {task!r} needs {needs(task)}: the model answers {found}")
    said = "embedding" if config.pooling else _said(config)
    if said and (named := _fitting(outputs, said, config, hidden)):
        return Reading(named, said, "config.json", config.pooling or "mean")
    return _by_graph(outputs, config, hidden)


def _named(outputs: Mapping[str, Output], names: str) -> Mapping[str, Output]:
    """The outputs that the user names, one or, parted by a comma, two. Raises DataError for a name that none has."""
    chosen = [name.strip() for name in names.split(",")]
    if missing := [name for name in chosen if name not in outputs]:
        raise DataError(f"output {missing[0]!r} is none of the model's: it answers {', '.join(outputs)}")
    return {name: outputs[name] for name in chosen}


def heads(outputs: Mapping[str, Output], hidden: int) -> tuple[str, ...]:
    """The outputs that answer something: numbers a row or a token, of another width than the encoder's vectors.

    hidden: width of the encoder, 0 where it is not known; then there are none.
    """
    floats = {name: output.axes for name, output in outputs.items() if output.dtype == "f"}
    return tuple(name for name, axes in floats.items() if hidden and axes[-1:] != (hidden,) and 0 < len(axes) <= 3)


def _said(config: ModelConfig) -> Kind | None:
    kind: Kind | None = next((kind for end, kind in ARCHITECTURES.items() if config.architecture.endswith(end)), None)
    if kind == "classes" and config.problem_type == "multi_label_classification":
        return "labels"
    return "score" if kind == "classes" and (config.classes == 1 or config.problem_type == "regression") else kind


def _fitting(
    outputs: Mapping[str, Output], kind: Kind, config: ModelConfig, hidden: int, task: str = ""
) -> tuple[str, ...]:
    """The outputs that can be of this kind: one, two for spans; none when there are no such.

    task: as the user or the data name it. For reranking two logits, of relevant and of not, are a score, too; for
    fill-mask a vocabulary may be small.
    """
    floats = {name: output.axes for name, output in outputs.items() if output.dtype == "f"}
    flat = [name for name, axes in floats.items() if len(axes) == 2 and axes[1] != "tokens"]
    states = [name for name, axes in floats.items() if len(axes) == 3 and axes[1] == "tokens"]
    if kind in ("classes", "labels"):
        several = [name for name in flat if floats[name][1] != 1] if task else flat
        fitting = [name for name in several if floats[name][1] in (config.classes or floats[name][1],)]
        preferred = [name for name in fitting if floats[name][1] != hidden] or fitting
        numbers = [name for name, output in outputs.items() if output.dtype in "iu" and output.axes in _ONE]
        return tuple((preferred or (numbers if kind == "classes" else []))[:1])
    if kind == "score":
        scores = [name for name, axes in floats.items() if axes in _ONE]
        return tuple((scores or [name for name in flat if task == "reranking" and floats[name] == ("rows", 2)])[:1])
    if kind == "masked":
        sizes = {name: size for name in states if isinstance(size := floats[name][2], int) and size != hidden}
        own = [name for name, size in sizes.items() if size == config.vocabulary]
        return tuple((own or [name for name, size in sizes.items() if size >= LEAST_VOCABULARY or task])[:1])
    if kind == "tokens":
        classes = [name for name in states if floats[name][2] == config.classes]
        return tuple((classes or [name for name in states if floats[name][2] != hidden] or states)[:1])
    if kind == "spans":
        spans = [name for name, axes in floats.items() if len(axes) == 2 and axes[1] == "tokens"]
        return _start_first(spans)
    pooled = [name for name in flat if any(word in name.lower() for word in ("sentence", "embed"))]
    return tuple((pooled or states or [name for name in flat if floats[name][1] != 1])[:1])


def _start_first(names: list[str]) -> tuple[str, ...]:
    """The outputs of starts and of ends: told by "end" in a name, else in the graph's order; none without two."""
    return tuple(sorted(names[:2], key=lambda name: "end" in name.lower())) if len(names) >= 2 else ()


_ONE: tuple[tuple[Axis, ...], ...] = (("rows",), ("rows", 1))


def _by_graph(outputs: Mapping[str, Output], config: ModelConfig, hidden: int) -> Reading:
    floats = {name: output.axes for name, output in outputs.items() if output.dtype == "f"}
    states: dict[str, Axis] = {name: axes[2] for name, axes in floats.items() if len(axes) == 3 and axes[1] == "tokens"}
    flat: dict[str, Axis] = {
        name: axes[1] for name, axes in floats.items() if len(axes) == 2 and axes[1] not in ("tokens", 1)
    }
    spans = [name for name, axes in floats.items() if len(axes) == 2 and axes[1] == "tokens"]
    logits = [name for name in flat if not _is_embedding(name, flat[name], hidden, set(states.values()))]
    called = [name for name in logits if "logits" in name.lower()]
    if logits:
        return Reading(tuple((called or logits)[:1]), "classes", "its width")
    scores = [name for name, axes in floats.items() if axes in _ONE]
    if scores:
        return Reading(tuple(scores[:1]), "score", "its width")
    if len(spans) >= 2:
        return Reading(_start_first(spans), "spans", "their axes")
    tagging = [name for name, width in states.items() if hidden and width != hidden]
    if tagging and not flat and len(states) == len(tagging):
        return Reading(tuple(tagging[:1]), "tokens", "its width")
    vectors = [name for name in floats if name in states or name in flat]
    if vectors:
        return Reading(tuple(vectors[:1]), "embedding", "its width" if hidden else "its name", config.pooling or "mean")
    numbers = [name for name, output in outputs.items() if output.dtype in "iu" and output.axes in _ONE]
    if numbers:
        return Reading(tuple(numbers[:1]), "classes", "its type")
    raise ModelError("needed logits [rows, classes], one score a row, or states [rows, tokens, width]")


def _is_embedding(name: str, width: Axis, hidden: int, states: set[Axis]) -> bool:
    """Whether [rows, width] is a vector of a text: as wide as the encoder; by its name where that is not known."""
    if width in states or (hidden and width == hidden):
        return True
    return not hidden and any(word in name.lower() for word in EMBEDDING_WORDS) and "logits" not in name.lower()
