"""A sentence-transformers folder as one torch module: the encoder, its pooling and what follows, as modules.json says.

https://sbert.net/docs/package_reference/sentence_transformer/models.html: a list of modules, each with a folder of its
own; Transformer comes first, then Pooling, then any of Dense and Normalize.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxslim_bert.documents import read_json, read_object
from onnxslim_bert.errors import ModelError
from onnxslim_bert.export.torch_export import require

MODULES = "modules.json"
WIDEST = 1 << 20  # of a vector
MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


def is_sentence_model(source: str | Path) -> bool:
    """Whether the folder makes one vector of token states: modules.json goes on behind the Transformer.

    That of a cross-encoder lists the Transformer alone, with the head that its architecture has.
    """
    file = Path(source) / MODULES
    entries = read_json(file) if file.is_file() else []
    if not isinstance(entries, list):
        return True  # which `sentence_model` refuses, as it does an entry that is no object
    return any(not isinstance(entry, dict) or _kind(entry) != "Transformer" for entry in entries)


def sentence_model(source: Path, encoder: Any) -> Any:
    """A torch module that answers last_hidden_state and sentence_embedding [batch, width].

    encoder: the transformers model. Raises ModelError for a module that is not known.
    """
    torch = require("torch")
    entries = read_json(source / MODULES)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ModelError(f"{source / MODULES}: needed a list of objects, each a module with its type and path")
    steps = [step for entry in entries if (step := _step(source, entry)) is not None]

    class SentenceModel(torch.nn.Module):  # type: ignore[misc, name-defined]
        """The encoder and the steps after it."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.config = encoder.config
            self.dense = torch.nn.ModuleList([step for step in steps if isinstance(step, torch.nn.Module)])

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> dict[str, Any]:
            """Token states and what the steps make of them."""
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
            vector = states
            for step in steps:
                vector = step(vector) if isinstance(step, torch.nn.Module) else step(vector, attention_mask)
            return {"last_hidden_state": states, "sentence_embedding": vector}

    return SentenceModel().eval()


def _kind(entry: Any) -> str:
    """What a module is, by the last part of its type."""
    return str(entry.get("type", "")).rpartition(".")[2]


def _step(source: Path, entry: Any) -> Any:
    """What a module does: a torch module, or a function of a tensor and the mask; None for the encoder."""
    kind, folder = _kind(entry), source / str(entry.get("path", ""))
    if kind == "Transformer":
        return None
    if kind == "Pooling":
        return _pooling(read_object(folder / "config.json"), folder)
    if kind == "Normalize":
        torch = require("torch")
        return lambda vector, mask: torch.nn.functional.normalize(vector, p=2, dim=-1)
    if kind == "Dense":
        return _dense(folder)
    raise ModelError(f"{source / MODULES} names {entry.get('type')!r}: only Transformer, Pooling, Dense and Normalize")


def _pooling(config: Any, folder: Path) -> Callable[[Any, Any], Any]:
    asked = [key for key, value in config.items() if key.startswith("pooling_mode") and value is True]
    if len(asked) != 1 or asked[0] not in MODES:
        raise ModelError(f"{folder}: pools by {', '.join(asked) or 'nothing'}: needed one of {', '.join(MODES)}")
    mode = MODES[asked[0]]

    def pool(states: Any, mask: Any) -> Any:
        real = mask.unsqueeze(-1).to(states.dtype)
        if mode == "mean":
            return (states * real).sum(dim=1) / real.sum(dim=1).clamp(min=1e-9)
        if mode == "max":
            return states.masked_fill(real == 0, -1e9).max(dim=1).values
        if mode == "first":
            return states[:, 0]
        last = mask.cumsum(dim=1).argmax(dim=1)
        return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1])).squeeze(1)

    return pool


def _dense(folder: Path) -> Any:
    """A dense layer with its activation, from safetensors."""
    torch = require("torch")
    config = read_object(folder / "config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity")).rpartition(".")[2]
    if activation not in ("Tanh", "Identity", "ReLU", "GELU"):
        raise ModelError(f"{folder}: activation {activation}: needed Tanh, Identity, ReLU or GELU")
    file = folder / "model.safetensors"
    if not file.is_file():
        raise ModelError(f"{folder}: no model.safetensors: save the folder again with a current sentence-transformers")
    sizes = config.get("in_features"), config.get("out_features")
    if not all(isinstance(size, int) and 0 < size < WIDEST for size in sizes):
        raise ModelError(f"{folder}: in_features and out_features are {sizes!r:.60}: needed two widths")
    linear = torch.nn.Linear(*sizes, bias=bool(config.get("bias", True)))
    weights = require("safetensors.torch").load_file(str(file))
    linear.load_state_dict({name.removeprefix("linear."): values for name, values in weights.items()})
    return torch.nn.Sequential(linear, getattr(torch.nn, activation)())
