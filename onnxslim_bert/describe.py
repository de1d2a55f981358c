"""An inspection as text."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onnxslim_bert.encoder_facts import EncoderFacts
from onnxslim_bert.file_facts import FileFacts, Port
from onnxslim_bert.inspection import Anatomy, Inspection
from onnxslim_bert.producer import Producer
from onnxslim_bert.sharing import Shared, Use
from onnxslim_bert.wording import numbered_layers, plural, si

LABEL = 14  # columns


def describe(inspection: Inspection) -> str:
    """The text that `onnxslim inspect` prints."""
    lines = list(_file(inspection.file))
    anatomy = inspection.encoder
    if anatomy is None:
        lines += [_row("encoder", f"none: {inspection.reason}")]
    else:
        lines += [*_encoder(anatomy.facts), _row("shared", "; ".join(_shared(anatomy.shared)) or "nothing"), ""]
        lines += [*_costs(anatomy, inspection.batch, inspection.seq), ""]
        lines += [_row("problems" if i == 0 else "", text) for i, text in enumerate(anatomy.problems or ["none"])] + [
            ""
        ]
        lines += [
            _row(advice.name, f"{'yes' if advice.applies else 'no ':<4} {advice.note}", 18) for advice in anatomy.passes
        ]
    return "\n".join(line.rstrip() for line in lines)


def _row(label: str, text: str, width: int = LABEL) -> str:
    return f"{label:<{width}} {text}"


def _file(file: FileFacts) -> Iterator[str]:
    opsets = ", ".join(f"{domain} {version}" for domain, version in file.opsets.items())
    yield _row(
        "file", f"{Path(file.path).name}, {si(file.nbytes, 'B')}, {sum(file.operators.values())} nodes, {opsets}"
    )
    for location, size in file.external.items():
        yield _row("", f"weights in {location}, {'missing' if size is None else si(size, 'B')}")
    if file.sha256:
        yield _row("sha256", file.sha256)
    yield _row("made by", _producer(file.producer))
    if file.producer.slimmed:
        notes = {key: file.producer.slimmed.get(key, "?") for key in ("onnxslim_bert", "source", "recipe")}
        yield _row("slimmed by", f"onnxslim-bert {notes['onnxslim_bert']} from {notes['source']}: {notes['recipe']}")
    for label, ports in (("inputs", file.inputs), ("outputs", file.outputs)):
        yield from (_row(label if i == 0 else "", text) for i, text in enumerate(_ports(ports)))
    for label, operators in (("fused", file.fused), ("quantized", file.quantized)):
        yield _row(label, _counts(operators) or "nothing")


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


def _encoder(facts: EncoderFacts) -> Iterator[str]:
    first = "the last for the first token only" if facts.first_token else ""
    styles = filter(None, (facts.norm, facts.activation or "activation not recognised", first))
    yield _row("encoder", f"{plural(facts.layers, 'layer')} of width {facts.hidden}, {', '.join(styles)}")
    heads = [f"{heads} of {width}" for heads, width in zip(facts.heads, facts.head_width, strict=True)]
    mask = f"padding hidden by {facts.mask}" if facts.mask else "no mask" if all(facts.proven) else "mask not proven"
    yield _row("heads", f"{_once(heads)}, {mask}")
    yield _row("feed-forward", _once([str(width or "none found") for width in facts.feed_forward]))
    tables = [plural(table.rows, role.replace("_", " ")) for role, table in facts.tables.items()]
    widths = {table.width for table in facts.tables.values()} - {facts.hidden}
    narrow = [f"{width} wide" for width in sorted(widths)]
    yield _row("embeddings", ", ".join([*tables, *narrow]) or "none found")
    kinds = {role.replace("_", " "): table.dtype for role, table in facts.tables.items()}
    parts = {"encoder": _counts(facts.encoder_dtypes), "head": _counts(facts.head_dtypes) or "no matrices"}
    yield _row(
        "weights", "; ".join(f"{name} {text}" for name, text in (parts | {"tables": _grouped(kinds)}).items() if text)
    )


def _once(values: Sequence[str]) -> str:
    """The value that all layers share, or all values."""
    return values[0] if len(set(values)) == 1 else " | ".join(values)


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in numbers.items())


def _grouped(kinds: Mapping[str, str]) -> str:
    return (
        _once(list(kinds.values()))
        if len(set(kinds.values())) == 1
        else ", ".join(f"{r} {k}" for r, k in kinds.items())
    )


def _shared(shared: Sequence[Shared]) -> Iterator[str]:
    """ "query, key of layers 0 to 2", "word = head"."""
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
    return use.role.replace("_", " ") if use.layer is None else f"{use.role} {use.layer}"


def _costs(anatomy: Anatomy, batch: int, seq: int) -> Iterator[str]:
    yield f"{'part':<{LABEL}} {'parameters':>10} {'stored':>10} {'FLOPs':>10}  (batch {batch}, {seq} tokens)"
    rows = [(str(cost.part), cost.parameters, cost.nbytes, cost.flops) for cost in anatomy.costs]
    parameters, nbytes, flops = (sum(row[column] for row in rows) for column in (1, 2, 3))
    for name, *numbers in [*rows, ("total", parameters, nbytes, flops)]:
        yield f"{name:<{LABEL}} {si(numbers[0]):>10} {si(numbers[1], 'B'):>10} {si(numbers[2]):>10}"
