from onnxslim_bert.calibration.working import Working as Working
from onnxslim_bert.errors import SlimError as SlimError
from onnxslim_bert.job.data import Data as Data
from onnxslim_bert.job.data import Sources as Sources
from onnxslim_bert.job.deployment import Deployment as Deployment
from onnxslim_bert.job.job import Job as Job
from onnxslim_bert.job.main_recipe import Quantization as Quantization
from onnxslim_bert.job.main_recipe import main_recipe as main_recipe
from onnxslim_bert.job.report import Report as Report
from onnxslim_bert.job.rows import canonical_form as canonical_form
from onnxslim_bert.job.run import run as run
from onnxslim_bert.job.seal import Gate as Gate
from onnxslim_bert.job.search.run import run_search as run_search
from onnxslim_bert.job.search.targets import Targets as Targets
from onnxslim_bert.model.onnx_model import Model as Model
from onnxslim_bert.recipes.recipe import Recipe as Recipe

__version__: str
