"""The one job: load, make, prove, publish. Quantizing, slimming, a search's result and a zoo's jobs are all this."""

from onnxslim_bert.graph.files import staging
from onnxslim_bert.job.job import Job
from onnxslim_bert.job.load import load
from onnxslim_bert.job.make import make
from onnxslim_bert.job.prove import prove
from onnxslim_bert.job.publish import publish
from onnxslim_bert.job.report import Report
from onnxslim_bert.job.search.frontier import SearchResult


def run(job: Job, found: SearchResult | None = None) -> Report:
    """Write what the job asks for, and say what was done and what it is worth.

    Nothing is written until the model has passed its checks, and then as a whole. A missed budget writes nothing and is
    told by the report (`Report.published`, `Report.enforce`). found: what a search measured on its way to the recipe.

    Raises SlimError (ModelError, DataError, PassError, OutputError, ProviderError) for what the user can mend; nothing
    is written then.
    """
    loaded = load(job)
    with staging(job.output) as folder:
        made = make(loaded, folder)
        proof = prove(loaded, made)
        return publish(loaded, made, proof, found)
