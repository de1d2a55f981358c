"""An inspection as text."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from onnxslim_bert.errors import as_line
from onnxslim_bert.inspection.costs import Cost
from onnxslim_bert.inspection.encoder_facts import EncoderFacts, Table
from onnxslim_bert.inspection.file_facts import FileFacts, Port
from onnxslim_bert.inspection.inspection import Inspection
from onnxslim_bert.inspection.producer import Producer
from onnxslim_bert.inspection.sharing import Shared, Use
from onnxslim_bert.model.layer_words import numbered_layers
from onnxslim_bert.wording import plural, si

Row = tuple[str, str]  # a label and what it says
WIDTH = 20  # of labels
LONGEST = 160  # characters of a note


def describe(inspection: Inspection) -> str:
    """The text that `onnxslim inspect` prints: the file, the encoder, its costs, problems, and the passes."""
    rows = list(_file(inspection.file))
    found = inspection.encoder
    if found is None:
        return _text([*rows, ("encoder", f"none: {inspection.reason}")])
    rows += [*_encoder(found.facts), ("shared", "; ".join(_shared(found.shared)) or "nothing")]
    batch = f"  (batch {inspection.batch}, {inspection.seq} tokens)"
    table = [_columns("part", "parameters", "stored", "FLOPs") + batch]
    for cost in _total(found.costs):
        table.append(_columns(cost.part, si(cost.parameters), si(cost.nbytes, "B"), si(cost.flops)))
    passes = [(advice.name, f"{'yes' if advice.applies else 'no':<4}{_short(advice.note)}") for advice in found.passes]
    problems = _aligned("problems", [_short(problem) for problem in found.problems] or ["none"])
    return "\n\n".join((_text(rows), "\n".join(table), _text(problems), _text(passes)))


def _text(rows: Iterable[Row]) -> str:
    return "\n".join(as_line(f"{label:<{WIDTH}}{text}") for label, text in rows)


def _aligned(label: str, texts: Sequence[str]) -> list[Row]:
    return [(label if i == 0 else "", text) for i, text in enumerate(texts)]


def _short(text: str) -> str:
    """At most `LONGEST` characters; the JSON document has all of them."""
    return textwrap.shorten(text, LONGEST, placeholder=" ...")


def _columns(name: str, parameters: str, stored: str, flops: str) -> str:
    return f"{name:<{WIDTH}}{parameters:>10}{stored:>11}{flops:>11}"


def _total(costs: Sequence[Cost]) -> list[Cost]:
    """The costs of each part and of the model."""
    sums = zip(*((cost.parameters, cost.nbytes, cost.flops) for cost in costs), strict=True)
    return [*costs, Cost("total", *map(sum, sums))]


def _file(file: FileFacts) -> Iterator[Row]:
    opsets = ", ".join(f"{domain} {version}" for domain, version in file.opsets.items())
    nodes = plural(sum(file.operators.values()), "node")
    yield "file", f"{Path(file.path).name}, {si(file.nbytes, 'B')}, {nodes}, {opsets}"
    for location, size in file.external.items():
        yield "", f"weights in {location}, {'missing' if size is None else si(size, 'B')}"
    if file.sha256:
        yield "sha256", file.sha256
    yield "made by", _producer(file.producer)
    if file.producer.slimmed:
        version, source, recipe = (file.producer.slimmed.get(key, "?") for key in ("onnxslim_bert", "source", "recipe"))
        yield "slimmed by", f"onnxslim-bert {version} from {source}: {recipe}"
    yield from _aligned("inputs", _ports(file.inputs))
    yield from _aligned("outputs", _ports(file.outputs))
    yield "fused", _counts(file.fused) or "nothing"
    yield "quantized", _counts(file.quantized) or "nothing"


def _producer(producer: Producer) -> str:
    writer = " ".join(filter(None, (producer.name, producer.version))) or "unknown"
    return f"{writer}, exported by {producer.exporter}" if producer.exporter not in ("", producer.name) else writer


def _ports(ports: Sequence[Port]) -> list[str]:
    """One line for each type and shape: "input_ids, attention_mask: int64 [batch, seq]"."""
    alike: dict[str, list[str]] = {}
    for port in ports:
        axes = ", ".join("?" if axis is None else str(axis) for axis in port.axes)
        alike.setdefault(f"{port.dtype} [{axes}]", []).append(port.name)
    return [f"{', '.join(names)}: {kind}" for kind, names in alike.items()]


def _encoder(facts: EncoderFacts) -> Iterator[Row]:
    styles = [facts.norm, facts.activation or "activation not recognised"]
    styles += ["the last for the first token only"] if facts.first_token else []
    yield "encoder", f"{plural(facts.layers, 'layer')} of width {facts.hidden}, {', '.join(filter(None, styles))}"
    if pairs := _pairs(facts):
        yield "pairs", pairs
    heads = [f"{heads} of {width}" for heads, width in zip(facts.heads, facts.head_width, strict=True)]
    mask = f"padding hidden by {facts.mask}" if facts.mask else "no mask" if all(facts.proven) else "mask not proven"
    yield "heads", f"{_once(heads)}, {mask}"
    yield "feed-forward", _once([str(width or "none found") for width in facts.feed_forward])
    yield "embeddings", ", ".join(_tables(facts.tables, facts.hidden)) or "none found"
    kinds = {
        "encoder": _counts(facts.encoder_dtypes),
        "head": _counts(facts.head_dtypes) or "none",
        "tables": _once([f"{table.dtype}" for table in facts.tables.values()] or ["none"]),
    }
    yield "weights", "; ".join(f"{name} {text}" for name, text in kinds.items())


def _pairs(facts: EncoderFacts) -> str:
    """What a decoupled model, or a part of one, does with the two texts of a pair; "" for any other model."""
    if facts.part == "passage":
        return "the passage encoder of a model that was split: passage_states are kept, and read by the joint part"
    if facts.part == "joint":
        return "the joint part of a model that was split: passage_states are those of its passage encoder"
    apart = numbered_layers(tuple(range(facts.apart)))
    return f"{apart} read the two texts apart: `onnxslim split` makes two files of it" if facts.apart else ""


def _tables(tables: Mapping[str, Table], hidden: int) -> Iterator[str]:
    for role, table in tables.items():
        yield plural(table.rows, _spaced(role)) + (f" in {table.bits:g} bits" if table.bits else "")
    widths = {table.width: 0 for table in tables.values() if table.bits is None}
    yield from (f"{width} wide" for width in widths if width != hidden)


def _once(values: Sequence[str]) -> str:
    """The value that all share, or all values."""
    return values[0] if len(set(values)) == 1 else " | ".join(values)


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in numbers.items())


def _shared(shared: Sequence[Shared]) -> Iterator[str]:
    """Phrases like "word = head" and "query, key of layers 0 to 2"."""
    across: dict[tuple[int, ...], list[str]] = {}
    for group in shared:
        roles = {use.role for use in group.uses}
        layers = tuple(use.layer for use in group.uses if use.layer is not None)
        if len(roles) == 1 and len(layers) == len(group.uses):
            across.setdefault(layers, []).extend(roles)
        else:
            yield " = ".join(_use(use) for use in group.uses)
    for layers, names in across.items():
        yield f"{', '.join(names)} of {numbered_layers(layers)}"


def _use(use: Use) -> str:
    return _spaced(use.role) if use.layer is None else f"{use.role} {use.layer}"


def _spaced(role: str) -> str:
    return role.replace("_", " ")
