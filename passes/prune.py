"""Narrow every layer to a given width."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from onnxslim_bert.errors import PassError
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.contract import Change, Context, Pass
from onnxslim_bert.rewriting.options import write_option
from onnxslim_bert.rewriting.pruning.prune import prune
from onnxslim_bert.rewriting.pruning.sensitivity import measure
from onnxslim_bert.rewriting.pruning.sites import Site, UnitKind, find_sites
from onnxslim_bert.wording import counted


@dataclass(frozen=True)
class Prune(Pass):
    """Keep given numbers of heads and of feed-forward neurons in each layer, and refit what reads them.

    `prune-heads` and `prune-ffn` find such numbers; this pass is told them, by a search for instance. Which units stay
    it decides itself, as they do. Then it cuts and refits layer by layer, from the first.

    heads: how many heads each layer keeps, first to last, as 12/9/9; one number is every layer's. Layers that share
        their matrices are one number. Empty keeps all.
    neurons: how many feed-forward neurons each layer keeps, written likewise, as 1536/1024/992.

    Kwon et al. 2022, https://arxiv.org/abs/2204.09656; Kurtic et al. 2023, https://arxiv.org/abs/2302.04089
    """

    name: ClassVar[str] = "prune"
    heads: tuple[int, ...] = ()
    neurons: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind, widths in self._widths().items():
            if min(widths) < 1:
                found = f"prune: {kind}={write_option(widths)}"
                raise PassError(f"{found} needed whole numbers from 1, one a layer, like 12/9/9")

    @property
    def measures(self) -> bool:
        return True

    def apply(self, model: Model, ctx: Context) -> Change:
        wanted = [
            (site, count)
            for kind, widths in self._widths().items()
            for site, count in _matched(find_sites(model, kind), widths, kind)
            if count < site.units
        ]
        if not wanted:
            return Change(0, "every layer has these widths already" if self._widths() else "no widths given")
        sites, counts = [site for site, _ in wanted], [count for _, count in wanted]
        found = measure(model, sites, [[] for _ in sites], ctx.trials)
        kept = [one.kept(count) for one, count in zip(found, counts, strict=True)]
        errors = prune(model, sites, kept, ctx.trials)
        removed = {kind: sum(s.units - n for s, n in wanted if s.kind == kind) for kind in self._widths()}
        note = counted({kind.removesuffix("s"): count for kind, count in removed.items()})
        return Change(sum(removed.values()), f"{note} removed", {"errors": errors})

    def _widths(self) -> dict[UnitKind, tuple[int, ...]]:
        given: dict[UnitKind, tuple[int, ...]] = {"heads": self.heads, "neurons": self.neurons}
        return {kind: widths for kind, widths in given.items() if widths}


def _matched(sites: Sequence[Site], widths: Sequence[int], kind: UnitKind) -> list[tuple[Site, int]]:
    widths = [*widths] * len(sites) if len(widths) == 1 else widths
    if len(sites) != len(widths):
        raise PassError(
            f"prune: {kind} for {len(widths)} layers; the encoder has {len(sites)} with matrices of their own"
        )
    for site, width in zip(sites, widths, strict=True):
        if width > site.units:
            raise PassError(f"prune: {width} {kind} asked for in layer {site.layers[0]}, which has {site.units}")
    return list(zip(sites, widths, strict=True))
