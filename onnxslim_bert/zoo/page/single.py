"""The report beside one written model, as a run of one job."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from onnxslim_bert.documents import structured
from onnxslim_bert.machine import Host
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.zoo.records import Result, Row, Run, Source, Timed, Timing

FIELDS = {"source", "output", "provenance", "steps", "latencies", "deployment", "host"}


def is_single(document: Mapping[str, Any]) -> bool:
    """Whether this is the report of `onnxslim quantize`."""
    return document.keys() >= FIELDS


def single_run(document: Mapping[str, Any]) -> Run:
    """What `onnxslim quantize` reported, as a run; parts, profile and layers are not in it.

    Raises DataError for a document of another form.
    """
    output = str(document["output"])
    more = {"key": "", "files": {}, "model": output, "parts": {}}
    result = structured(Result, {"worst": [], **document, **more})
    deployment = structured(dict[str, Any], document["deployment"])
    target, name = str(deployment.get("target", "cpu")), PurePath(str(document["source"])).stem
    latencies = structured(tuple[Latency, ...], document["latencies"])
    timed = [Timed(latency, {}) for latency in latencies]
    before, after = timed if len(timed) == 2 else (None, None)
    timing = Timing("", target, before, {}, structured(Host, document["host"]), 0, 1)
    source = Source(
        name,
        str(document["source"]),
        result.provenance.source_sha256,
        result.source_bytes,
        timings={target: timing} if before else {},
    )
    row = Row(
        "",
        name,
        PurePath(output).stem,
        target,
        result.provenance.recipe,
        "done",
        path=output,
        budgets=structured(Budgets, document.get("gate", {}).get("budgets", {})),
        verdicts=structured(tuple[Verdict, ...], document.get("verdicts", [])),
        result=result,
        timed=after,
    )
    return Run(str(document["source"]), (source,), (row,))
