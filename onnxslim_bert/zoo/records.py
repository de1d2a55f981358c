"""What a run of a zoo leaves behind: the document run.json, as a tree of dataclasses."""

from dataclasses import dataclass, field

from onnxslim_bert.job.search.sensitivity import LayerSensitivity
from onnxslim_bert.machine import Host
from onnxslim_bert.proof.bench import Latency
from onnxslim_bert.proof.comparison import Comparison
from onnxslim_bert.proof.gates import Budgets, Verdict
from onnxslim_bert.proof.worst import Disagreement
from onnxslim_bert.recipes.provenance import Provenance
from onnxslim_bert.recipes.run import Done
from onnxslim_bert.targets.placement import Placement


@dataclass(frozen=True)
class Result:
    """What a "make" task wrote: the model (the artefact) and the evidence for it, without times.

    key: of the task. files: sha256 of each file in objects/KEY/, by name. model: the name of the file to open; with
    several lengths, that of the longest. parts: bytes of the model's constants by part (`inspection.parts.PARTS`);
    empty where it can no longer be read as an encoder. download_bytes: of the model after gzip; None where a version
    made it that did not measure that. The other fields are those of `job.report.Report`.
    """

    key: str
    files: dict[str, str]
    model: str
    source_bytes: int
    output_bytes: int
    provenance: Provenance
    steps: tuple[Done, ...]
    methods: dict[str, float]
    placement: Placement | None
    unproven: str
    proven_on: str
    comparison: Comparison | None
    worst: tuple[Disagreement, ...]
    parts: dict[str, int]
    download_bytes: int | None = None


@dataclass(frozen=True)
class Timed:
    """The times of one model file: its latency, and how its milliseconds divide among kinds of operators.

    profile: milliseconds of one run by kind of operator (`proof.profile.KINDS`). Profiled runs are slower, so they are
    scaled to add up to the median latency. Example: 2 ms and 4 ms when profiled, median 3 ms: 1 ms and 2 ms.
    """

    latency: Latency
    profile: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """What a "time" task measured: a source and everything made of it for one target, timed in turns.

    source: times of the source on the CPU, None where nothing was timed. outputs: times of what was made, by the key of
    its "make" task. rounds: in each of which every model runs. reason: why nothing was timed; "" when it was.
    """

    key: str
    target: str
    source: Timed | None
    outputs: dict[str, Timed]
    host: Host
    rounds: int
    threads: int
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """What a "study" task found out about one source.

    parts: bytes of its constants by part, as in `Result`. layers: how much int8 in each layer damages the outputs.
    reason: why the layers were not measured; "" when they were.
    """

    key: str
    parts: dict[str, int]
    layers: tuple[LayerSensitivity, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One job of a run: a model, made by a recipe, for a target; how it ended and what came of it.

    key: of its "make" task. text: the recipe as it stands in the zoo file. status: how the task ended (`Ended.status`),
    or "waiting"; message: why it failed. exit_code: 0, or why the job fails the run: 1 for a crash or a limit, 2 to 6
    as for every command. attempts: how often its process began. cached: nothing of it ran this time.
    seconds, cpu_seconds, peak_bytes, worker: as in `Ended`. path: the model under its readable name, relative to the
    run's folder. verdicts: on every budget that is set and could be judged. result: None where no model was made.
    timed: None where nothing could be timed.
    """

    key: str
    model: str
    recipe: str
    target: str
    text: str
    status: str
    message: str = ""
    exit_code: int = 0
    attempts: int = 0
    cached: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    worker: str = ""
    path: str = ""
    budgets: Budgets = field(default_factory=Budgets)
    verdicts: tuple[Verdict, ...] = ()
    result: Result | None = None
    timed: Timed | None = None


@dataclass(frozen=True)
class Source:
    """One model of the run, as it was given. timings: of the source itself, by target."""

    name: str
    path: str
    sha256: str
    nbytes: int
    study: Study | None = None
    timings: dict[str, Timing] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """The whole run; `report.report_json` adds schema, version and host.

    seconds: wall, of the last invocation. storage: the URL of what lies elsewhere than in the run's folder.
    interrupted: it did not come to its end.
    """

    zoo: str
    sources: tuple[Source, ...]
    rows: tuple[Row, ...]
    seconds: float = 0.0
    storage: str = ""
    interrupted: bool = False
