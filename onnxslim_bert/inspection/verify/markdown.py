"""Documents of commands in GitHub-flavoured Markdown, for the summary page of a job."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from onnxslim_bert.errors import OutputError
from onnxslim_bert.proof.markdown import escaped, table
from onnxslim_bert.wording import si

Document = Mapping[str, Any]  # what `--json` prints
NONE = "-"


def heading(text: object) -> str:
    """A heading of the third level, as the steps of a job have in its summary."""
    return f"### {escaped(text)}\n\n"


def append(path: Path, text: str) -> None:
    """Add `text` to the end of a file, which is made where there is none: the steps of a job share one summary.

    Raises OutputError.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); give another file for the summary") from error


def validation_summary(document: Document) -> str:
    """The summary of `onnxslim validate`: each candidate on each provider, and the verdicts."""
    found = document.get("validations", [document])
    seen = found[0]["comparison"]
    metric = seen["scores"][0]["metric"] if seen["scores"] else "score"
    title = f"Against {_file(found[0]['base'])} on {seen['data']} {seen['split']}, {seen['rows']} rows"
    headers = ["candidate", "provider", metric, "drop, points", "agreement", "size", "speed-up"]
    rows = [[_file(one["candidate"]), one["target"], *_proof(one), _speedup(_latencies(one))] for one in found]
    return heading(title) + table(headers, rows) + _cases(verdict for one in found for verdict in one["verdicts"])


def verification_summary(document: Document) -> str:
    """The summary of `onnxslim verify`: what is as recorded, and the verdicts of the gate run again."""
    made = document["provenance"]
    said = f"Made of {made['source']} by onnxslim-bert {made['onnxslim_bert']}: {made['recipe']}"
    cases = _cases([*document["checks"], *document["verdicts"]])
    return heading(_file(document["model"])) + escaped(said) + "\n" + cases


def run_summary(document: Document) -> str:
    """The summary of a zoo run: a row for each job, and the reasons of those that fail it."""
    rows = document["rows"]
    failed = [row for row in rows if row["exit_code"]]
    headers = ["model", "recipe", "target", "status", "metric", "drop, points", "agreement", "size", "speed-up", "exit"]
    jobs = [
        [row["model"], row["recipe"], row["target"], row["status"], *_result(row), row["exit_code"]] for row in rows
    ]
    text = heading(f"{len(rows)} jobs, {len(failed)} failed") + table(headers, jobs)
    if failed:
        reasons = [[row["model"], row["recipe"], row["target"], _reason(row)] for row in failed]
        text += "\n" + table(["model", "recipe", "target", "why it fails"], reasons)
    return text


def _result(row: Document) -> list[str]:
    """metric, drop, agreement, size, speed-up of one job."""
    result, timed = row["result"], row["timed"]
    if result is None:
        return [NONE] * 5
    sized = {"comparison": result["comparison"], "base_bytes": result["source_bytes"]}
    proof = _proof({**sized, "candidate_bytes": result["output_bytes"]})
    return [*proof, _speedup([timed["latency"]] if timed else [])]


def _proof(one: Document) -> Iterator[str]:
    """The score of base and candidate, its drop, the agreement, and the size."""
    seen = one["comparison"]
    score = seen["scores"][0] if seen and seen["scores"] else None
    agreement = seen["fidelity"]["agreement"] if seen else None
    yield f"{score['base']['value']:.2f} to {score['candidate']['value']:.2f}" if score else NONE
    yield _spread(score["drop"]) if score else NONE
    yield f"{agreement['value']:.2f} %" if agreement else NONE
    yield f"{si(one['base_bytes'], 'B')} to {si(one['candidate_bytes'], 'B')}"


def _latencies(one: Document) -> list[Document]:
    return one["bench"]["latencies"] if one["bench"] else []


def _speedup(latencies: list[Document]) -> str:
    return f"{latencies[-1]['speedup']['value']:.2f}x" if latencies else NONE


def _spread(interval: Document) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} to {interval['high']:.2f})"


def _cases(cases: Iterable[Document]) -> str:
    """A row for every check and verdict; what fails stands out."""
    rows = [[_named(case), case["outcome"].replace("missed", "MISSED"), case["note"]] for case in cases]
    return "\n" + table(["gate", "verdict", ""], rows)


def _named(case: Document) -> str:
    name = str(case.get("gate") or case["name"])
    return f"{name} on {case['where']}" if case.get("where") else name


def _reason(row: Document) -> str:
    said = {
        outcome: "; ".join(f"{_named(one)}: {one['note']}" for one in row["verdicts"] if one["outcome"] == outcome)
        for outcome in ("missed", "inconclusive")
    }
    return row["message"] or said["missed"] or said["inconclusive"] or f"{row['status']}, exit code {row['exit_code']}"


def _file(path: str) -> str:
    return PurePath(path).name
