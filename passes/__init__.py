"""The one table of passes."""

from onnxslim_bert.contract import Pass
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.smooth import Smooth
from onnxslim_bert.passes.split_outliers import SplitOutliers
from onnxslim_bert.passes.unpad import Unpad

PASSES: dict[str, type[Pass]] = {
    p.name: p
    for p in (
        Canonicalize,
        Fuse,
        FirstToken,
        SplitOutliers,
        Smooth,
        QuantizeStatic,
        QuantizeDynamic,
        Float16,
        Unpad,
        SkipMask,
    )
}
