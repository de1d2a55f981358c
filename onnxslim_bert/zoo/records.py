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
    """What a "make" task wrote: the artefact and its proof, without times.

    files: of the artefact in objects/KEY/, with their sha256. model: the one of them to open, the longest of several
    lengths. parts: bytes of its constants by part (`inspection.parts.PARTS`), empty where it is no longer read as an
    encoder.
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


@dataclass(frozen=True)
class Timed:
    """Of one model file in a "time" task: its latency in the interleaved run, and where its milliseconds go.

    profile: milliseconds of one run by kind of operator (`proof.profile.KINDS`), seen in runs of their own and scaled
    to the latency's median.
    """

    latency: Latency
    profile: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """What a "time" task measured: a source and everything made of it for one target, in one interleaved run.

    outputs: by the key of the "make" task. reason: why nothing was timed.
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
    """What a "study" task found of one source: bytes by part (as in `Result`), and how sensitive its layers are.

    reason: why the layers were not measured; "" when they were.
    """

    key: str
    parts: dict[str, int]
    layers: tuple[LayerSensitivity, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One job of the run: a model, a recipe, a target.

    status: how its "make" task ended, or "waiting". text: the recipe as it was asked for. attempts: how often its
    process began. cached: nothing of it ran this time. path: the artefact under a readable name, from the run's folder.
    timed: None where nothing could be timed. verdicts: on every budget that is set.
    exit_code: 0, or why this row fails the run: 1 crashed or stopped, 2 to 6 as for every command.
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
