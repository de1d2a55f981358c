"""Run a graph in PyTorch, so that gradients can be had."""

import inspect
import warnings
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import torch
from torch import Tensor

from onnxslim_bert.arrays import Array
from onnxslim_bert.errors import PassError, one_line
from onnxslim_bert.graph.probe import nodes_between
from onnxslim_bert.model.onnx_model import Model
from onnxslim_bert.rewriting.distillation.operators import OPERATORS, Operator
from onnxslim_bert.rewriting.distillation.parameters import Plain, Trained
from onnxslim_bert.rewriting.distillation.quantized_weights import Make


class Executor:
    """A graph whose weights are PyTorch parameters.

    parameters: by the names of the graph's constants. One that several nodes read is one parameter. rates: of AdamW, at
    most, for each where a layer is trained by itself.
    """

    def __init__(
        self,
        model: Model,
        trained: Collection[str] = (),
        quantized: Mapping[str, Make] = MappingProxyType({}),
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Raises PassError that names the first node with an operator or an attribute that is not known.

        trained: constants that are to have gradients. quantized: integers and scales that are to have some, too, and
        how (`quantized_weights`). dtype: in which float32 is computed, float64 to check gradients.
        """
        self._dtype = dtype
        self._model = model
        constants = model.constants()
        plain = {name: Plain(constants[name].values, dtype) for name in trained}
        self._trained: dict[str, Trained] = {**plain, **{name: make(dtype) for name, make in quantized.items()}}
        self.parameters = {name: trained.parameter for name, trained in self._trained.items()}
        self.rates = {name: trained.rate for name, trained in self._trained.items()}
        self._constants = {
            name: self._tensor(constant.values) for name, constant in constants.items() if name not in self._trained
        }
        self._nodes = {id(node): self._bound(node) for node in model.graph.nodes}
        self._plans: dict[tuple[tuple[str, ...], ...], list[tuple[gs.Node, list[str]]]] = {}

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Tensor]:
        """The tensors called `outputs`, by default the model's outputs, for the inputs `feeds`.

        `feeds` may hold tensors inside the graph too: what they are computed from is then not run.
        """
        names = tuple(tensor.name for tensor in self._model.graph.outputs) if outputs is None else tuple(outputs)
        values: dict[str, Any] = {name: self._tensor(given) for name, given in feeds.items()}
        values |= {name: trained.value() for name, trained in self._trained.items()}
        for node, release in self._plan(names, tuple(feeds)):
            function, attributes = self._nodes[id(node)]
            inputs = [self._value(values, tensor) for tensor in node.inputs]
            try:
                results = function(*inputs, **attributes)
            except (RuntimeError, TypeError, IndexError, NotImplementedError) as error:
                raise PassError(f"node {node.name!r} ({node.op}) cannot be run: {one_line(error)}") from error
            results = results if isinstance(results, tuple) else (results,)
            values |= {tensor.name: result for tensor, result in zip(node.outputs, results, strict=False)}
            for name in release:
                del values[name]
        return [self._constants[name] if name in self._constants else values[name] for name in names]

    def trained(self) -> dict[str, Array]:
        """Copies of the parameters' values as they are now, in the types that the graph has them in."""
        return {name: trained.array() for name, trained in self._trained.items()}

    def _plan(self, names: tuple[str, ...], given: tuple[str, ...]) -> list[tuple[gs.Node, list[str]]]:
        """The nodes that `names` need behind `given`, in order, each with the tensors that nothing needs after it."""
        if (names, given) not in self._plans:
            tensors = self._model.graph.tensors()
            sources = [tensors[name] for name in given if name in tensors]
            needed = {id(node) for name in names for node in nodes_between(sources, tensors[name])}
            order = [node for node in self._model.graph.nodes if id(node) in needed]
            last = {tensor.name: i for i, node in enumerate(order) for tensor in (*node.inputs, *node.outputs)}
            kept = {*names, *self._constants, *self._trained, ""}
            self._plans[names, given] = [
                (node, [name for name in _names(node) if name not in kept and last[name] == i])
                for i, node in enumerate(order)
            ]
        return self._plans[names, given]

    def _value(self, values: Mapping[str, Tensor], tensor: gs.Tensor) -> Tensor | None:
        if not tensor.name:
            return None
        return self._constants[tensor.name] if tensor.name in self._constants else values[tensor.name]

    def _tensor(self, values: Array) -> Tensor:
        """A tensor over the same memory, where that is of the type to compute in: nothing here writes to it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the arrays of a graph cannot be written to
            made = torch.from_numpy(np.asarray(values, order="C"))
        return made.to(self._dtype) if made.dtype == torch.float32 else made

    def _bound(self, node: gs.Node) -> tuple[Operator, dict[str, Any]]:
        """The function of a node, and its attributes as that takes them."""
        function = OPERATORS.get((node.domain or "", node.op))
        if function is None:
            raise PassError(
                f"node {node.name!r}: {node.domain or 'ONNX'}'s operator {node.op} cannot be trained through; run this "
                "pass before those that write it"
            )
        attributes = {key: self._attribute(key, value) for key, value in node.attrs.items()}
        if unknown := _unknown(function, attributes):
            raise PassError(f"node {node.name!r} ({node.op}): the attribute {unknown!r} cannot be trained through")
        return function, attributes

    def _attribute(self, key: str, value: Any) -> Any:
        if key == "to":
            kind = onnx.helper.tensor_dtype_to_np_dtype(value) if isinstance(value, int) else value
            return self._tensor(np.zeros(1, kind)).dtype
        if key == "axes":  # an input in later opsets
            return torch.tensor(value)
        return self._tensor(value.values) if isinstance(value, gs.Constant) else value


def _names(node: gs.Node) -> list[str]:
    """The tensors that a node reads or writes."""
    return list(dict.fromkeys(tensor.name for tensor in (*node.inputs, *node.outputs)))


def _unknown(function: Operator, attributes: Mapping[str, Any]) -> str | None:
    """The first attribute that `function` does not name; PyTorch's own functions take none."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        parameters = MappingProxyType({})
    keywords = {name for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
    known = keywords | ({"axes"} & set(parameters))
    return next((name for name in attributes if name not in known), None)
