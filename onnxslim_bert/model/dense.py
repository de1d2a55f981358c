"""The dense layers of a model that are still float, and which of them need the same scales.

Eight bits need no roles: every constant matrix counts, whether or not an encoder is read around it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxslim_bert.errors import ModelError, NoEncoderError, PassError
from onnxslim_bert.graph.probe import constant
from onnxslim_bert.model.attention_form import FUSED_ATTENTION
from onnxslim_bert.model.decoder_cache import check_no_cache
from onnxslim_bert.model.embeddings import Embeddings, find_embeddings, table_of
from onnxslim_bert.model.encoder import Encoder
from onnxslim_bert.model.halves import remedy
from onnxslim_bert.model.linear import Linear, is_linear, read_linear
from onnxslim_bert.model.onnx_model import Model

NARROWEST = 32  # outputs of a task head from which int8 saves anything
FEWEST = 8  # rows and columns of any other
WORTH = 4096  # elements of another table, or of a constant that no int8 form takes, that are worth a word
QUANTIZED = "QLinearMatMul"  # a product of integers, as files in ONNX Runtime's operator form (QOperator) have it
PRODUCTS = frozenset(["MatMul", "Gemm", "Conv", "Einsum", "ConvTranspose", "LSTM", "GRU"])


def encoder_of(model: Model) -> Encoder | None:
    """The encoder; None where none is recognised. Raises ModelError for what no pass takes: a decoder with a cache."""
    try:
        return model.encoder
    except NoEncoderError as error:
        check_without_encoder(model.graph, error)
        return None


def check_without_encoder(graph: gs.Graph, reason: NoEncoderError) -> None:
    """Raise ModelError unless a graph in which no encoder is recognised can still be quantized."""
    check_no_cache(graph)
    for node in graph.nodes:
        branches = [value for value in node.attrs.values() if isinstance(value, gs.Graph)]
        if any(other.op in (*PRODUCTS, "Softmax") for branch in branches for other in branch.nodes):
            raise ModelError(
                f"{reason}; and node {node.name!r} ({node.op}) has products in branches, which are not read"
            )
    reads_tokens = any(table_of(node) is not None for node in graph.nodes)
    if not reads_tokens and not any(_multiplies_activations(node) for node in graph.nodes):
        raise ModelError(str(reason))
    if not any(map(is_linear, graph.nodes)):
        if integers := sum(node.op == QUANTIZED for node in graph.nodes):
            raise ModelError(f"its products are quantized already ({integers} {QUANTIZED}); start from the float model")
        raise ModelError(f"{reason}; and no constant matrix is multiplied with, so there is nothing to quantize")


def _multiplies_activations(node: gs.Node) -> bool:
    """Whether `node` multiplies two tensors that are no constants, as attention does."""
    products = ("MatMul", "Einsum", *FUSED_ATTENTION)
    return node.op in products and not any(constant(t) is not None for t in node.inputs[:2])


def embeddings_of(model: Model) -> Embeddings:
    """The embedding tables, also where no encoder is recognised."""
    encoder = encoder_of(model)
    return find_embeddings(model.graph, None) if encoder is None else encoder.embeddings


def tables_of(model: Model) -> list[str]:
    """The names of the embedding tables: those with a role, and others that are worth storing in int8."""
    known = list(embeddings_of(model).tables.values())
    others = [table for node in model.graph.nodes if (table := table_of(node)) is not None and table.name not in known]
    worth = [t.name for t in others if t.values.shape[1] >= NARROWEST and t.values.size >= WORTH]
    return [*known, *dict.fromkeys(worth)]


def dense_layers(model: Model) -> list[Linear]:
    """The dense layers that are still float, those with a role first; the few outputs of a classifier stay float."""
    encoder = encoder_of(model)
    linears = _with_roles(encoder)
    known = {linear.node for linear in (*linears, *(encoder.head if encoder else ()))}
    nodes = [node for node in model.graph.nodes if is_linear(node) and node.name not in known]
    linears += [linear for node in nodes if _is_worth(linear := read_linear(node), node)]
    if not linears:
        raise ModelError(f"no matrix has {FEWEST} rows and columns: nothing to quantize")
    if all(linear.quantized for linear in linears):
        instead = ", or put float32 before it" if any(node.op == "MatMulNBits" for node in model.graph.nodes) else ""
        raise PassError(f"the encoder's dense layers are quantized already; start from the float model{instead}")
    constants = model.constants()
    found = [linear for linear in linears if not linear.quantized]
    for linear in found:
        if (dtype := constants[linear.weight].values.dtype) != np.float32:
            raise PassError(f"the weight at node {linear.node!r} is {dtype}; {remedy(model.graph, dtype)}")
    return found


def _is_worth(linear: Linear, node: gs.Node) -> bool:
    """Whether a layer without a role saves anything in int8: it has FEWEST rows and columns or more.

    The last dense layer before an output must have NARROWEST outputs or more.
    """
    if linear.d_out >= NARROWEST:
        return linear.d_in >= FEWEST
    return min(linear.d_in, linear.d_out) >= FEWEST and any(is_linear(other) for other in _below(node))


def _below(node: gs.Node) -> Iterator[gs.Node]:
    front, seen = [node], set[int]()
    while front:
        for tensor in front.pop().outputs:
            new = [reader for reader in tensor.outputs if id(reader) not in seen]
            seen |= {id(reader) for reader in new}
            front.extend(new)
            yield from new


def stays_float(model: Model) -> str:
    """What int8 leaves as it is, and why: text to be put behind a pass's note, empty when there is nothing to say."""
    clauses = list(_left(model))
    try:
        model.encoder  # noqa: B018
    except NoEncoderError as error:
        clauses.append(f"no encoder read ({error}), so nothing that needs its roles")
    return "".join(f"; {clause}" for clause in clauses)


def _left(model: Model) -> Iterator[str]:
    """One clause for each operator that multiplies with large constants and has no int8 form here."""
    counts: dict[str, int] = {}
    for node in model.graph.nodes:
        values = [x for t in node.inputs if (x := constant(t)) is not None and x.dtype == np.float32]
        if node.op in PRODUCTS and not is_linear(node) and any(x.size >= WORTH for x in values):
            counts[node.op] = counts.get(node.op, 0) + 1
    for op, count in counts.items():
        yield f"{count} {op} left in float32: int8 is for products with one constant matrix"


def _with_roles(encoder: Encoder | None) -> list[Linear]:
    if encoder is None:
        return []
    projection = [encoder.embeddings.projection] if encoder.embeddings.projection else []
    head = [linear for linear in encoder.head if linear.d_out >= NARROWEST]
    layers = [linear for layer in encoder.layers for linear in layer.linears.values()]
    return list(dict.fromkeys(matrix for linear in (*projection, *layers, *head) for matrix in linear.matrices))


def group_sites(linears: Sequence[Linear]) -> list[list[list[Linear]]]:
    """The layers in groups that need the same scales; a group is a list of sites.

    A site holds the layers that read one tensor, as query, key and value do. Sites that share a weight are one group.
    """
    sites: dict[str, list[Linear]] = {}
    for linear in linears:
        sites.setdefault(linear.source, []).append(linear)
    groups: list[list[list[Linear]]] = []
    for site in sites.values():
        names = {linear.weight for linear in site}
        sharing = [g for g in groups if names & {linear.weight for other in g for linear in other}]
        merged = [other for g in sharing for other in g] + [site]
        groups = [g for g in groups if not any(g is s for s in sharing)] + [merged]
    return groups
