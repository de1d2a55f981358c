"""The one table of passes, in an order in which they can run."""

from onnxslim_bert.passes.bottleneck import Bottleneck
from onnxslim_bert.passes.canonicalize import Canonicalize
from onnxslim_bert.passes.decouple import Decouple
from onnxslim_bert.passes.dense_2d import Dense2d
from onnxslim_bert.passes.distill import Distill
from onnxslim_bert.passes.drop_layers import DropLayers
from onnxslim_bert.passes.drop_tokens import DropTokens
from onnxslim_bert.passes.early_exit import EarlyExit
from onnxslim_bert.passes.factorize_embedding import FactorizeEmbedding
from onnxslim_bert.passes.first_token import FirstToken
from onnxslim_bert.passes.fix_shapes import FixShapes
from onnxslim_bert.passes.float16 import Float16
from onnxslim_bert.passes.float32 import Float32
from onnxslim_bert.passes.fuse import Fuse
from onnxslim_bert.passes.gelu_tanh import GeluTanh
from onnxslim_bert.passes.int32_inputs import Int32Inputs
from onnxslim_bert.passes.lookup_positions import LookupPositions
from onnxslim_bert.passes.low_rank import LowRank
from onnxslim_bert.passes.lower_opset import LowerOpset
from onnxslim_bert.passes.mask_bias import MaskBias
from onnxslim_bert.passes.pack_weights import PackWeights
from onnxslim_bert.passes.plain_operators import PlainOperators
from onnxslim_bert.passes.prune import Prune
from onnxslim_bert.passes.prune_ffn import PruneFfn
from onnxslim_bert.passes.prune_heads import PruneHeads
from onnxslim_bert.passes.prune_hidden import PruneHidden
from onnxslim_bert.passes.quantize_blockwise import QuantizeBlockwise
from onnxslim_bert.passes.quantize_dynamic import QuantizeDynamic
from onnxslim_bert.passes.quantize_embedding import QuantizeEmbedding
from onnxslim_bert.passes.quantize_qdq import QuantizeQdq
from onnxslim_bert.passes.quantize_static import QuantizeStatic
from onnxslim_bert.passes.quantize_weights import QuantizeWeights
from onnxslim_bert.passes.share_weights import ShareWeights
from onnxslim_bert.passes.shift_channels import ShiftChannels
from onnxslim_bert.passes.skip_mask import SkipMask
from onnxslim_bert.passes.smooth import Smooth
from onnxslim_bert.passes.sparsify import Sparsify
from onnxslim_bert.passes.split_outliers import SplitOutliers
from onnxslim_bert.passes.split_sums import SplitSums
from onnxslim_bert.passes.student import Student
from onnxslim_bert.passes.trim_vocabulary import TrimVocabulary
from onnxslim_bert.passes.unfuse_norms import UnfuseNorms
from onnxslim_bert.passes.unpad import Unpad
from onnxslim_bert.rewriting.contract import Pass

# what providers other than the CPU's want (`lowering`), and nobody else
FORMS: tuple[type[Pass], ...] = (
    FixShapes,
    MaskBias,
    LookupPositions,
    SplitSums,
    PlainOperators,
    Dense2d,
    GeluTanh,
    UnfuseNorms,
    LowerOpset,
    Int32Inputs,
)
_TABLE: tuple[type[Pass], ...] = (
    Float32,
    Canonicalize,
    Fuse,
    ShareWeights,
    DropLayers,
    PruneHeads,
    PruneFfn,
    Prune,
    PruneHidden,
    Bottleneck,
    TrimVocabulary,
    FactorizeEmbedding,
    LowRank,
    Sparsify,
    Decouple,
    Student,
    Distill,
    ShiftChannels,
    FirstToken,
    DropTokens,
    *FORMS,
    QuantizeEmbedding,
    SplitOutliers,
    Smooth,
    QuantizeStatic,
    QuantizeDynamic,
    QuantizeWeights,
    QuantizeBlockwise,
    QuantizeQdq,
    Float16,
    Unpad,
    SkipMask,
    EarlyExit,
    PackWeights,
)
PASSES: dict[str, type[Pass]] = {p.name: p for p in _TABLE}
