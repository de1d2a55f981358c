"""What the int8 model and each unit of it cost, in milliseconds and bytes, measured on this machine."""

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.download import download_bytes
from onnxslim_bert.graph.files import model_bytes, model_files
from onnxslim_bert.job.deployment import ON_CPU, Deployment
from onnxslim_bert.job.search.forms import finish_to_time
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.bench import Entry, Latency, Rounds, bench
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sites import Site, UnitKind, find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units
from onnxslim_bert.targets.places import Places
from onnxslim_bert.targets.table import CPU, target_named

SHARES = (0.25, 0.5, 0.75)  # of the units of each site, left out of the models that are timed
ROUNDS = 30
NOTES = 4096  # bytes at most of what a written file says of itself: how it was made, what was measured
KINDS: tuple[UnitKind, ...] = ("heads", "neurons")


@dataclass(frozen=True)
class TimingConditions:
    """How models are timed: on `batch` rows of `length` tokens, with `threads` threads; `seed` draws the tokens.

    packed: their sizes are those after gzip. where: the target; the source runs on the CPU.
    """

    batch: int = 1
    length: int = 128
    threads: int = 1
    seed: int = 0
    packed: bool = False
    where: Deployment = ON_CPU


@dataclass(frozen=True)
class Saving:
    """What leaving out one unit (a head, or a neuron of the feed-forward) of a site saves, a run and in the file."""

    ms: float
    nbytes: float


@dataclass(frozen=True)
class Costs:
    """Latency and size of the int8 model with nothing removed, and what one unit of each site saves.

    source_ms: milliseconds a run of the source as given; full_ms: of its int8 form, in the same interleaved run.
    full_bytes: of the int8 form. savings: by `site_key`, the kind and the first layer of a site, such as "heads 3".
    """

    source_ms: float
    full_ms: float
    full_bytes: int
    savings: dict[str, Saving]

    def of(self, site: Site) -> Saving:
        """What one unit of `site` saves."""
        return self.savings[site_key(site)]


def site_key(site: Site) -> str:
    """The name of a site in tables."""
    return f"{site.kind} {site.layers[0]}"


def prunable_sites(model: Model) -> list[Site]:
    """Every site of the kinds that can be pruned: an encoder without plain feed-forwards has heads only."""
    sites: list[Site] = []
    for kind in KINDS:
        with contextlib.suppress(PassError):
            sites += find_sites(model, kind)
    return sites


def measure_costs(source: Path, model: Model, folder: Path, conditions: TimingConditions, progress: Progress) -> Costs:
    """Measure what the int8 form of `model` costs, and what a unit of each site saves, by timing narrowed models.

    Sites that compute the same (`alike`) are narrowed together, by each of SHARES. What a unit saves is the slope of a
    line through these (least squares), since the work of dense layers and of attention is linear in their units.
    Example: 4 of 16 heads save 1 ms, 8 save 2 ms, 12 save 3 ms: 0.25 ms a head. Which units are left out does not
    change how long a model takes, nor do the activation ranges, which are made up here.

    source: as given. model: canonicalized and fused. folder: keeps full.onnx, the int8 form; others are deleted.
    """
    full = write_quantized(model, [], 0.0, folder / "full.onnx", conditions.where)
    full_ms, source_ms = time_models([full, (source, CPU)], conditions)
    full_bytes = size_of(full, conditions)
    groups = alike(model, prunable_sites(model))
    savings: dict[str, Saving] = {}
    for done, group in enumerate(groups, start=1):
        files = [
            write_quantized(model, group, share, folder / f"narrow-{share}.onnx", conditions.where) for share in SHARES
        ]
        by_now, *times = time_models([full, *files], conditions)
        removed = np.array([sum(site.units - _left(site, share) for site in group) for share in SHARES])
        saved_ms = full_ms * (1 - np.array(times) / by_now)
        saved_bytes = full_bytes - np.array([size_of(file, conditions) for file in files])
        per_unit = [max(float(removed @ saved / (removed @ removed)), 0.0) for saved in (saved_ms, saved_bytes)]
        savings |= {site_key(site): Saving(*per_unit) for site in group}  # least squares
        progress("timing widths", done, len(groups))
        for file in files:
            file.unlink()
    return Costs(source_ms, full_ms, full_bytes, savings)


def size_of(path: Path, conditions: TimingConditions) -> int:
    """Bytes of the model at `path`, external data included, once it holds NOTES; if `packed` after gzip."""
    return NOTES + (download_bytes(model_files(path)) if conditions.packed else model_bytes(path))


def time_models(models: Sequence[Path | Entry], conditions: TimingConditions) -> list[float]:
    """Milliseconds a run of each model, timed in ROUNDS rounds in each of which all of them run.

    A path runs on the target of `conditions`.

    The first one's is its median; of the others, that times the ratio of their time to the first one's (`_share`).
    """
    latencies = bench(
        models,
        Working(threads=conditions.threads, seed=conditions.seed),
        batch_sizes=[conditions.batch],
        lengths=[conditions.length],
        rounds=Rounds(ROUNDS),
        footprints=False,
        places=Places((target_named(conditions.where.target),), conditions.where.allow_fallback),
    ).latencies
    return [latencies[0].median_ms * _share(latency) for latency in latencies]


def _share(latency: Latency) -> float:
    """A model's time as a share of the first one's; 1 where the interval of the speed-up holds 1."""
    speedup = latency.speedup
    return 1.0 if speedup.low <= 1 <= speedup.high else 1 / speedup.value


def alike(model: Model, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites in groups that do equal work.

    Those of a group have one kind, one number of units and of layers, and work on all tokens or, as the last layer may
    after `first-token`, on the first alone.
    """
    probe = model.clone()
    FirstToken().apply(probe, Context())
    single = {layer.index for layer in probe.encoder.layers if layer.first_token}
    groups: dict[tuple[str, int, int, bool], list[Site]] = {}
    for site in sites:
        key = site.kind, site.units, len(site.layers), bool(single & {*site.layers})
        groups.setdefault(key, []).append(site)
    return list(groups.values())


def write_quantized(
    model: Model,
    sites: Sequence[Site],
    share: float,
    path: Path,
    where: Deployment,
    float_layers: tuple[int, ...] = (),
) -> Path:
    """Write the quantized form of `model` with `share` of the units of `sites` left out, to be timed.

    Its answers are wrong. float_layers: numbers of the layers that stay float32. Returns `path`.
    """
    made = model.clone()
    for site in sites:
        keep_units(made, site, np.arange(_left(site, share)))
    finish_to_time(made, where, float_layers)
    made.save(path, overwrite=True)
    del made
    gc.collect()  # a graph's nodes and tensors refer to each other
    return path


def _left(site: Site, share: float) -> int:
    return max(1, round(site.units * (1 - share)))
