"""The model card of a written folder: README.md as Hugging Face reads it, with what was measured.

https://huggingface.co/docs/hub/model-cards: metadata in YAML between two lines of "---", then Markdown. Results stand
in the metadata as a `model-index`, and for people as a table.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_whole
from onnxslim_bert.job.report import Report
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.comparison_lines import facts, spread
from onnxslim_bert.proof.markdown import escaped, table
from onnxslim_bert.wording import plural, si, tokens_a_row

CARD = "README.md"
FENCE = "---\n"
MOST_METADATA = 1 << 18  # letters, which are read in seconds
MERGE = "<<"  # of mappings in YAML: a few lines of it unfold to gigabytes
POINTS = 100  # in which scores are kept, of the textbook's value
PIPELINES = {
    "classes": "text-classification",
    "labels": "text-classification",
    "score": "text-classification",
    "embedding": "sentence-similarity",
    "tokens": "token-classification",
    "spans": "question-answering",
}


def card(report: Report, source: Path, name: str, file: str) -> str:
    """The text of README.md for a folder called `name` that holds the report's model as `file`.

    The text and the metadata of the README.md in the folder `source` stay; a section with the measured table and an
    entry of the model-index are added.
    """
    metadata, text = _read(source / CARD)
    text = text.strip("\n") or f"# {escaped(name)}"
    return f"{_front(metadata, report, name)}\n{text}\n\n{section(report, file)}"


def model_index(report: Report, name: str, pipeline: str = "") -> list[dict[str, Any]]:
    """The scores of a report as the entry of a model-index, as textbooks give them (not in points); empty without.

    pipeline: the task's name on the hub, where the model has one; else it follows from the kind of output.
    """
    seen = report.comparison
    if seen is None or not seen.scores:
        return []
    result = {
        "task": {"type": pipeline or PIPELINES.get(seen.kind, seen.kind)},
        "dataset": {"type": seen.data, "name": seen.data, "split": seen.split},
        "metrics": [
            {"type": score.metric, "name": score.metric, "value": round(score.candidate.value / POINTS, 6)}
            for score in seen.scores
        ],
    }
    return [{"name": name, "results": [result]}]


def section(report: Report, file: str) -> str:
    """The section of the card: what was made of what, the measured table, and what was seen beside it."""
    made = report.provenance
    lines = [
        f"## {escaped(file)}\n",
        f"Made of {escaped(made.source)} (sha256 {made.source_sha256[:16]}) by onnxslim-bert {made.onnxslim_bert}, for "
        f"{report.deployment.target}; calibrated on {escaped(made.calibration) if made.calibration else 'nothing'}.\n",
        table(["", made.source, file], _measured(report)),
    ]
    if report.comparison is not None:
        seen = report.comparison
        lines.append(f"{escaped(seen.data)} {seen.split}, {plural(seen.rows, 'row')}; intervals hold with 95 %.\n")
        lines.append("".join(f"- {escaped(line)}\n" for line in facts(seen)))
    lines.append(f"Recipe: `{made.recipe}`\n")
    return "\n".join(lines)


def _measured(report: Report) -> Iterator[tuple[str, str, str]]:
    yield "size", si(report.source_bytes, "B"), si(report.output_bytes, "B")
    yield from _scores(report.comparison)
    for slow, fast in [report.latencies] if report.latencies else []:
        shape = f"latency, batch {fast.batch}, {tokens_a_row(fast.length)}, {report.threads} thread"
        yield f"{shape}{'s' * (report.threads > 1)}", f"{slow.usual_ms:.2f} ms", f"{fast.usual_ms:.2f} ms"
        yield "speed-up", "1", f"{spread(fast.speedup)}"


def _scores(seen: Comparison | None) -> Iterator[tuple[str, str, str]]:
    if seen is None:
        return
    for score in seen.scores:
        yield score.metric, spread(score.base), spread(score.candidate)
        yield f"drop in {score.metric}, points", "", spread(score.drop)
    close = seen.fidelity
    if close.agreement is not None:
        yield "agreement, %", "", spread(close.agreement)
    if close.cosine is not None:
        yield "cosine, mean and least", "", f"{close.cosine:.4f}, {close.min_cosine:.4f}"


def _front(metadata: Mapping[str, Any], report: Report, name: str) -> str:
    """The metadata with the entry of this model in its model-index, as a block of YAML."""
    import yaml

    entry = model_index(report, name, str(metadata.get("pipeline_tag") or ""))
    known = metadata.get("model-index")
    tags = metadata.get("tags") or []
    tags = tags if isinstance(tags, list) else [tags]
    written = {
        **metadata,
        "tags": [*tags, *(tag for tag in ("onnx", "onnxslim-bert") if tag not in tags)],
        "model-index": [*(known if isinstance(known, list) else []), *entry],
    }
    if not written["model-index"]:
        del written["model-index"]
    text: str = yaml.safe_dump(written, sort_keys=False, allow_unicode=True)
    return f"{FENCE}{text}{FENCE}"


def _read(file: Path) -> tuple[dict[str, Any], str]:
    """The metadata and the text of a card; what is no metadata stays text. ({}, "") without a card."""
    import yaml

    if not file.exists():
        return {}, ""
    text = read_whole(file, "a model card").decode("utf-8-sig", "replace").replace("\r\n", "\n")
    head, fence, rest = text.removeprefix(FENCE).partition(f"\n{FENCE}")
    if not text.startswith(FENCE) or not fence or len(head) > MOST_METADATA or MERGE in head:
        return {}, text
    try:
        metadata = yaml.safe_load(head)
        yaml.safe_dump(metadata)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}, text
    return (metadata, rest) if isinstance(metadata, dict) else ({}, text)
