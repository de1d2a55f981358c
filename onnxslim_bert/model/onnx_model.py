"""One ONNX model: its graph, its weights, and the header that a graph library would drop."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import ModelError, NoEncoderError
from onnxslim_bert.graph import garbage, wire
from onnxslim_bert.graph.boundary import check_model
from onnxslim_bert.graph.copies import copied
from onnxslim_bert.graph.edit import drop_unused, sort_nodes
from onnxslim_bert.graph.external import external_values
from onnxslim_bert.graph.files import write_atomically
from onnxslim_bert.graph.functions import inlined
from onnxslim_bert.graph.runtime_words import in_words
from onnxslim_bert.graph.sessions import checked_bytes
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.model.find_encoder import find_encoder
from onnxslim_bert.model.validity import check_valid

# it would warn on stdout of what is handled here, and to be silent at each node would take a tenth of its time
gs.logger.G_LOGGER.log = lambda *_, **__: None
LARGE = 1024  # bytes from which a constant counts as a weight
SEPARATE = 4  # the IR version from which constants need not be inputs, too
LARGEST = 1 << 31  # bytes from which protobuf writes no message
PIECE = 1 << 22  # values of a weight that are looked at together


class Model:
    """An ONNX model in memory, which passes rewrite. Arrays are never edited in place: `replace` them by name.

    graph: the graphsurgeon graph; call `changed()` after a rewrite.
    header: metadata_props, model_version, domain and the doc strings of the model, its inputs and its outputs, which
    graphsurgeon drops and `proto()` restores.
    """

    def __init__(self, graph: gs.Graph, header: onnx.ModelProto, path: Path | None = None) -> None:
        self.graph = graph
        self.header = header
        self.path = path
        self._encoder: Encoder | NoEncoderError | None = None

    @classmethod
    def load(cls, path: Path) -> "Model":
        """The model at `path`, its weights memory-mapped.

        Raises ModelError when the file is not ONNX, when its external data is missing or lies outside its folder, when
        a weight is not finite, or when ONNX Runtime crashes on it: parts of it run wherever it is looked at.
        """
        proto, weights = wire.read_skeleton(path)
        weights |= {
            tensor.name: external_values(tensor, path)
            for tensor in proto.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        }
        checked_bytes(path)
        model = cls.from_proto(proto, weights, path)
        for name, constant in model.constants().items():
            _check_finite(path, name, constant.values)
        wire.release(weights.values())
        return model

    @classmethod
    def from_proto(
        cls, proto: onnx.ModelProto, weights: Mapping[str, Array] | None = None, path: Path | None = None
    ) -> "Model":
        """The model in `proto`; `weights` stand in for initializers whose data the proto leaves out.

        Raises ModelError when the graph cannot be read.
        """
        weights = weights or {}
        if proto.functions:
            proto = inlined(path or "model", proto)
            sizes = {i: weights[t.name].nbytes for i, t in enumerate(proto.graph.initializer) if t.name in weights}
            check_model(path or "model", proto, sizes)
        header = onnx.ModelProto(
            metadata_props={entry.key: entry for entry in proto.metadata_props}.values(),  # the last, as ONNX Runtime
            model_version=proto.model_version,
            doc_string=proto.doc_string,
            domain=proto.domain or None,  # an empty one would be written too
            graph=onnx.GraphProto(
                input=[_documented(value) for value in proto.graph.input if value.doc_string],
                output=[_documented(value) for value in proto.graph.output if value.doc_string],
            ),
        )
        said = {value.name for value in (*proto.graph.input, *proto.graph.output)}
        for value in [value for value in proto.graph.value_info if value.name in said]:
            proto.graph.value_info.remove(value)  # of ONNX Runtime's float16 files, an output's again without its shape
        try:
            with garbage.kept():
                graph = gs.import_onnx(proto)
            graph.ir_version = max(graph.ir_version, SEPARATE)
            ends = {id(end) for end in (*graph.inputs, *graph.outputs)}
            for tensor in graph.tensors().values():
                if isinstance(tensor, gs.Constant):
                    tensor.values = weights[tensor.name] if tensor.name in weights else np.asarray(tensor.values)
                    tensor.data_location = None
                elif id(tensor) not in ends:
                    tensor.shape = tensor.dtype = None  # stale after the first rewrite; ONNX Runtime infers them again
        except Exception as error:
            raise ModelError(f"{path or 'model'}: the graph cannot be read ({in_words(error)})") from error
        return cls(graph, header, path)

    @property
    def encoder(self) -> Encoder:
        """The encoder in the graph, found on first use and again after every change.

        Raises NoEncoderError that names what was missing.
        """
        if self._encoder is None:
            try:
                self._encoder = find_encoder(self.graph)
            except NoEncoderError as error:
                self._encoder = error
        if isinstance(self._encoder, NoEncoderError):
            raise NoEncoderError(str(self._encoder))
        return self._encoder

    def changed(self) -> None:
        """Drop what no output needs, put nodes in order, and forget the encoder."""
        with garbage.kept():
            drop_unused(self.graph)
            sort_nodes(self.graph)
        self._encoder = None

    def constants(self) -> dict[str, gs.Constant]:
        """Every constant of the graph by name."""
        found = {t.name: t for node in self.graph.nodes for t in node.inputs if isinstance(t, gs.Constant)}
        return found | {t.name: t for t in (*self.graph.inputs, *self.graph.outputs) if isinstance(t, gs.Constant)}

    def array(self, name: str) -> Array:
        """A read-only view of the constant `name`. Raises KeyError when there is none."""
        view: Array = self.constants()[name].values.view()
        view.flags.writeable = False
        return view

    def replace(self, name: str, values: Array) -> None:
        """Give the constant `name` new values, of any shape and type. Raises KeyError when there is none."""
        self.constants()[name].values = values
        self._encoder = None

    def clone(self) -> "Model":
        """A copy that shares the arrays, which nothing edits in place."""
        header = onnx.ModelProto()
        header.CopyFrom(self.header)
        with garbage.kept():
            copy = Model(copied(self.graph), header, self.path)
        copy._encoder = self._encoder  # it holds names, which are the same in the copy; finding it takes time
        return copy

    def proto(self) -> onnx.ModelProto:
        """The whole model as a protobuf message."""
        with garbage.kept(), _written_out(self.constants().values()):
            proto: onnx.ModelProto = gs.export_onnx(self.graph, do_type_check=False)
        header = onnx.ModelProto()
        header.CopyFrom(self.header)
        header.ClearField("graph")
        proto.MergeFrom(header)
        said = {value.name: value.doc_string for value in (*self.header.graph.input, *self.header.graph.output)}
        for value in (*proto.graph.input, *proto.graph.output):
            if value.name in said:
                value.doc_string = said[value.name]
        return proto

    def skeleton(self) -> tuple[onnx.ModelProto, dict[str, Array]]:
        """The model with its weights declared as external data, and those weights by name; nothing is copied.

        Weights are constants of LARGE bytes or more, of NumPy's own types.
        """
        constants = self.constants()
        held = {name: constant.values for name, constant in constants.items()}
        weights = {name: values for name, values in held.items() if values.nbytes >= LARGE and _is_numpy(values)}
        with _stand_ins(constants, weights):
            return self.proto(), weights

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the model to `path`: first beside it under a temporary name, then renamed.

        Weights of more than protobuf takes go to `wire.data_file(path)`, which belongs to the model from then on.
        Raises OutputError when a file exists and `overwrite` is not set, or when it cannot be written.
        """
        skeleton, weights = self.skeleton()
        check_valid(skeleton, weights)
        if sum(values.nbytes for values in weights.values()) >= LARGEST:
            data = wire.data_file(path)
            write_atomically(data, wire.laid_out(skeleton, weights, data.name), overwrite=overwrite)
            weights_inside: dict[str, Array] = {}
        else:
            weights_inside = weights
        write_atomically(path, wire.serialized(skeleton, weights_inside), overwrite=overwrite)
        wire.release(weights.values())

    def fingerprint(self) -> str:
        """The sha256 of everything that decides what the model computes."""
        skeleton, weights = self.skeleton()
        digest = hashlib.sha256(skeleton.SerializeToString(deterministic=True))
        for name in sorted(weights):
            digest.update(np.ascontiguousarray(weights[name]).data)
        return digest.hexdigest()


@contextlib.contextmanager
def _stand_ins(constants: Mapping[str, gs.Constant], weights: Mapping[str, Array]) -> Iterator[None]:
    """While open, the graph's weights are declarations without data."""
    try:
        for name, values in weights.items():
            constants[name].values = LazyValues(_declaration(name, values))
        yield
    finally:
        for name, values in weights.items():
            constants[name].values = values


@contextlib.contextmanager
def _written_out(constants: Iterable[gs.Constant]) -> Iterator[None]:
    """While open, constants of types that NumPy does not have are messages: graphsurgeon would not pack four bits."""
    odd = {
        id(one): (one, one.values)
        for one in constants
        if not isinstance(one._values, LazyValues) and not _is_numpy(one.values)
    }
    try:
        for one, values in odd.values():
            one.values = LazyValues(onnx.numpy_helper.from_array(values, one.name))
        yield
    finally:
        for one, values in odd.values():
            one.values = values


def _is_numpy(values: Array) -> bool:
    """Whether they are of NumPy's own types, of which ONNX Runtime takes arrays; not of ml_dtypes', and not complex."""
    return values.dtype.isbuiltin == 1 and values.dtype.kind != "c"


def _declaration(name: str, values: Array) -> onnx.TensorProto:
    return onnx.TensorProto(
        name=name,
        dims=values.shape,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
        data_location=onnx.TensorProto.EXTERNAL,
        external_data=wire.external("weights", 0, values.nbytes),
    )


def _check_finite(path: Path, name: str, values: Array) -> None:
    if values.dtype.kind != "f" or values.size < 2:  # single values may be a mask's -inf
        return
    for start in range(0, values.size, PIECE):
        some = values.reshape(-1)[start : start + PIECE]
        if not np.isfinite([some.min(), some.max()]).all():
            raise ModelError(f"{path}: weight {name!r} holds NaN or infinite values; export the model again")
        if values.size > PIECE:
            wire.release([some])


def _documented(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The name and the doc string of an input or output, without its type."""
    return onnx.ValueInfoProto(name=value.name, doc_string=value.doc_string)
