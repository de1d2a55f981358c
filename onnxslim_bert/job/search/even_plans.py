"""Plans that keep the same share of every layer: what a training starts from best, whatever a refit would lose."""

from dataclasses import replace

from onnxslim_bert.job.search.alternatives import MeasuredOptions
from onnxslim_bert.job.search.choose import Prediction, predicted
from onnxslim_bert.job.search.width_choices import CostBudget, SiteChoice, WidthChoices, width_choices


def even_plan(options: MeasuredOptions, budget: CostBudget) -> Prediction | None:
    """The plan within `budget` that keeps the largest share of heads and neurons, the same in every layer.

    With each word table the layers are as wide as then fits; of these plans the one of the least predicted damage.
    Every token goes on, all matrices are int8, the stream stays whole. None where the narrowest layers do not fit.

    Widths that lose least before a training leave single heads and a few neurons in the middle layers; equal ones train
    to less error at the same speed (docs/distillation.md).
    """
    plain = replace(options, tokens=options.tokens[:1], precisions=options.precisions[:1], streams=options.streams[:1])
    tables = width_choices(replace(plain, matrices=()))
    found = [predicted(table, picked, options.method) for table in tables if (picked := _widest(table, budget))]
    return min(found, key=lambda plan: plan.damage, default=None)


def _widest(table: WidthChoices, budget: CostBudget) -> list[int] | None:
    """An index into each ladder: the choices of the largest share that holds `budget`; None where none does."""
    shares = [[_share(one) for one in ladder] for ladder in table.ladders]
    for limit in sorted({share for ladder in shares for share in ladder}, reverse=True):
        picked = [max(sum(share <= limit for share in ladder) - 1, 0) for ladder in shares]
        if budget.holds(*table.spent(picked)):
            return picked
    return None


def _share(one: SiteChoice) -> float:
    return one.units / one.site.units if one.site is not None else 1.0
