"""What each width costs in milliseconds and bytes, measured on this machine with the graph that will run."""

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxslim_bert.calibration.observers import Range
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.errors import PassError
from onnxslim_bert.graph.files import model_bytes
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.progress import Progress
from onnxslim_bert.proof.bench import Latency, Rounds, bench
from onnxslim_bert.rewriting.contract import Context
from onnxslim_bert.rewriting.pruning.sites import Site, UnitKind, find_sites
from onnxslim_bert.rewriting.pruning.surgery import keep_units

SHARES = (0.25, 0.5, 0.75)  # of the units of every site of a group, left out of the models that are timed
ROUNDS = 30
KINDS: tuple[UnitKind, ...] = ("heads", "neurons")


@dataclass(frozen=True)
class TimedRows:
    """What latency is measured on. batch rows of `length` tokens, on `threads` threads."""

    batch: int = 1
    length: int = 128
    threads: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Saving:
    """What leaving out one unit of a site saves."""

    ms: float
    nbytes: float


@dataclass(frozen=True)
class Costs:
    """Latency and size of the int8 model with nothing removed, and what each site can save.

    source_ms: of the source as given; full_ms: of its int8 form; both from one interleaved run.
    savings: by kind and index of the site's first layer, as "heads 3".
    """

    source_ms: float
    full_ms: float
    full_bytes: int
    savings: dict[str, Saving]

    def of(self, site: Site) -> Saving:
        """What `site` can save."""
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


def measure_costs(source: Path, model: Model, folder: Path, workload: TimedRows, progress: Progress) -> Costs:
    """Time int8 models of `model` (canonicalized and fused) in which some sites are narrowed; files go to `folder`.

    Sites whose layers compute the same are narrowed together; what that saves is linear in the units, as dense layers
    and attention are. Units are left out as they come and ranges are made up: neither changes how long a model takes.
    """
    full = write_int8(model, [], 0.0, folder / "full.onnx")
    full_ms, source_ms = time_models([full, source], workload)
    full_bytes = model_bytes(full)
    groups = alike(model, prunable_sites(model))
    savings: dict[str, Saving] = {}
    for done, group in enumerate(groups, start=1):
        files = [write_int8(model, group, share, folder / f"narrow-{share}.onnx") for share in SHARES]
        by_now, *times = time_models([full, *files], workload)
        removed = np.array([sum(site.units - _left(site, share) for site in group) for share in SHARES])
        saved_ms = full_ms * (1 - np.array(times) / by_now)
        saved_bytes = full_bytes - np.array([model_bytes(file) for file in files])
        per_unit = [max(float(removed @ saved / (removed @ removed)), 0.0) for saved in (saved_ms, saved_bytes)]
        savings |= {site_key(site): Saving(*per_unit) for site in group}  # least squares
        progress("timing widths", done, len(groups))
        for file in files:
            file.unlink()
    return Costs(source_ms, full_ms, full_bytes, savings)


def time_models(paths: Sequence[Path], workload: TimedRows) -> list[float]:
    """Milliseconds a run of each model, from rounds in which all of them run; the first one's median sets the scale."""
    latencies = bench(
        paths,
        Working(threads=workload.threads, seed=workload.seed),
        batch_sizes=[workload.batch],
        lengths=[workload.length],
        rounds=Rounds(ROUNDS),
        footprints=False,
    ).latencies
    return [latencies[0].median_ms * _share(latency) for latency in latencies]


def _share(latency: Latency) -> float:
    """Of the first one's time; a difference that the rounds cannot tell from none is none."""
    speedup = latency.speedup
    return 1.0 if speedup.low <= 1 <= speedup.high else 1 / speedup.value


def alike(model: Model, sites: Sequence[Site]) -> list[list[Site]]:
    """Sites in groups that compute the same: of one kind and width, for all tokens or for the first alone."""
    probe = model.clone()
    FirstToken().apply(probe, Context())
    single = {layer.index for layer in probe.encoder.layers if layer.first_token}
    groups: dict[tuple[str, int, int, bool], list[Site]] = {}
    for site in sites:
        key = site.kind, site.units, len(site.layers), bool(single & {*site.layers})
        groups.setdefault(key, []).append(site)
    return list(groups.values())


def write_int8(
    model: Model, sites: Sequence[Site], share: float, path: Path, float_layers: tuple[int, ...] = ()
) -> Path:
    """The int8 form of `model` with `share` of the units of `sites` left out, fit to be timed and nothing else.

    float_layers: numbers of those that stay float32.
    """
    made = model.clone()
    for site in sites:
        keep_units(made, site, np.arange(_left(site, share)))
    FirstToken().apply(made, Context())
    quantize = QuantizeStatic(correct_bias=False, float_layers=float_layers)
    quantize.apply(made, Context({want: Range(-4.0, 4.0) for want in quantize.wants(made)}))
    SkipMask().apply(made, Context())
    made.save(path, overwrite=True)
    del made
    gc.collect()  # a graph's nodes and tensors refer to each other
    return path


def _left(site: Site, share: float) -> int:
    return max(1, round(site.units * (1 - share)))
