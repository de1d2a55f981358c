"""The one job: load, make, prove, publish. Quantizing, slimming, a search's result and a zoo's jobs are all this."""

from dataclasses import replace
from pathlib import Path

from onnxslim_bert.graph.files import staging
from onnxslim_bert.graph.patience import patience, renewed
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.load import check_free, load
from onnxslim_bert.job.make import make
from onnxslim_bert.job.prove import prove
from onnxslim_bert.job.publish import publish
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.search.frontier import SearchResult
from onnxslim_bert.job.unfinished import UnfinishedFolder


def run(job: Job) -> Report:
    """Run the job: write its output, and return the report of what was done and what the result is worth.

    The output's name is claimed from the start; the output appears only after all checks, and as a whole. When a budget
    is missed nothing is written, and the report says so (`Report.published`, `Report.enforce`). What native code may
    take beyond what its sizes explain is each job's own, however many a process runs.

    Work that takes long, such as a training, keeps its state in the folder OUTPUT.unfinished until the job ends; after
    an interrupt, the same job goes on from there.

    Raises SlimError (ModelError, DataError, PassError, OutputError, ProviderError) for what the user can mend; nothing
    is written then.
    """
    check_free(job)
    with renewed(patience.stuck), staging(job.output) as folder:
        return run_in(folder, job)


def run_in(folder: Path, job: Job, found: SearchResult | None = None) -> Report:
    """As `run`, with the output claimed already: `folder` is that of `staging`.

    found: what a search measured on its way to the recipe.
    """
    kept = unfinished_folder(job)
    loaded = load(replace(job, working=replace(job.working, unfinished=kept)))
    made = make(loaded, folder)
    proof = prove(loaded, made)
    report = publish(loaded, made, proof, found)
    kept.remove()
    return report


def unfinished_folder(job: Job) -> UnfinishedFolder:
    """Where the state of long work of `job` is kept until its output is written."""
    return UnfinishedFolder(job.output.with_name(f"{job.output.name}.unfinished"))
