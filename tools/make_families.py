"""Make tiny encoders of many families for tools/family_trial.py: FOLDER/{family}-{export}/model.onnx, tokenizer.json.

    python tools/make_families.py FOLDER [--only REGEX] [--export NAME]... [--head NAME]... [--seed N]...

Needs the [export] extra. Random weights by transformers' own code, by every exporter that writes the family; what
PyTorch cannot export is said and left out, and so is a head that the family lacks. With a head other than `states` the
folder is {family}-{head}-{export}, with a seed other than 0 it ends in -seed{seed}. What is there is not made again.
"""

import argparse
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from onnxslim_bert.errors import one_line
from onnxslim_bert.export.torch_export import Exporter, export_module, quiet

EXPORTS: dict[str, tuple[Exporter, int, str]] = {
    "ts17-eager": ("torchscript", 17, "eager"),
    "ts17-sdpa": ("torchscript", 17, "sdpa"),
    "dyn18-eager": ("dynamo", 18, "eager"),
    "dyn20-sdpa": ("dynamo", 20, "sdpa"),
}
VOCABULARY, HIDDEN, HEADS, NEURONS, LAYERS, POSITIONS = 300, 72, 6, 160, 2, 140
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": NEURONS,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "d_kv": 12,
    "d_ff": NEURONS,
    "num_layers": LAYERS,
    "num_heads": HEADS,
}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "encoder_ffn_dim": NEURONS,
    "decoder_layers": 1,
    "decoder_attention_heads": HEADS,
    "decoder_ffn_dim": NEURONS,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
}
XLM = {"vocab_size": VOCABULARY, "n_words": VOCABULARY, "emb_dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS}
XLM |= {"max_position_embeddings": POSITIONS, "pad_index": 0}
ROTARY = {**SIZES, "num_key_value_heads": 2, "head_dim": 12}
GPT = {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": POSITIONS}
GPT |= {"use_cache": False}
IMAGE = {**SIZES, "image_size": 32, "patch_size": 8}
SOUND = {
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
TEXT, ENCODER = "AutoModel", "encoder"
FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {  # configuration, its sizes, the class; or the part of a model
    "bert": ("BertConfig", SIZES, TEXT),
    "roberta": ("RobertaConfig", SIZES, TEXT),
    "xlmr": ("XLMRobertaConfig", SIZES, TEXT),
    "prenorm": ("RobertaPreLayerNormConfig", SIZES, TEXT),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": VOCABULARY, "dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": NEURONS},
        TEXT,
    ),
    "albert": ("AlbertConfig", {**SIZES, "embedding_size": 24}, TEXT),
    "electra": ("ElectraConfig", {**SIZES, "embedding_size": 24}, TEXT),
    "mobilebert": (
        "MobileBertConfig",
        {**SIZES, "hidden_size": 96, "embedding_size": 48, "intra_bottleneck_size": 48},
        TEXT,
    ),
    "squeezebert": (
        "SqueezeBertConfig",
        {**SIZES, "embedding_size": HIDDEN, "q_groups": 2, "intermediate_groups": 2},
        TEXT,
    ),
    "convbert": ("ConvBertConfig", {**SIZES, "embedding_size": 24}, TEXT),
    "mpnet": ("MPNetConfig", {**SIZES, "pad_token_id": 1}, TEXT),
    "debertav1": (
        "DebertaConfig",
        {**SIZES, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
        TEXT,
    ),
    "debertav3": (
        "DebertaV2Config",
        {
            **SIZES,
            "relative_attention": True,
            "position_buckets": 16,
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
        TEXT,
    ),
    "roformer": ("RoFormerConfig", {**SIZES, "embedding_size": HIDDEN}, TEXT),
    "esm": ("EsmConfig", {**SIZES, "position_embedding_type": "rotary", "mask_token_id": 4}, TEXT),
    "nystromformer": ("NystromformerConfig", {**SIZES, "segment_means_seq_len": 16}, TEXT),
    "yoso": ("YosoConfig", {**SIZES, "use_expectation": True}, TEXT),
    "fnet": ("FNetConfig", SIZES, TEXT),
    "ibert": ("IBertConfig", SIZES, TEXT),
    "luke": ("LukeConfig", {**SIZES, "entity_vocab_size": 10}, TEXT),
    "rembert": ("RemBertConfig", {**SIZES, "input_embedding_size": 24, "output_embedding_size": 24}, TEXT),
    "megatron": ("MegatronBertConfig", SIZES, TEXT),
    "xlm": ("XLMConfig", XLM, TEXT),
    "flaubert": ("FlaubertConfig", XLM, TEXT),
    "xlnet": (
        "XLNetConfig",
        {"vocab_size": VOCABULARY, "d_model": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "d_inner": NEURONS},
        TEXT,
    ),
    "ernie": ("ErnieConfig", SIZES, TEXT),
    "data2vec": ("Data2VecTextConfig", SIZES, TEXT),
    "camembert": ("CamembertConfig", SIZES, TEXT),
    "xmod": ("XmodConfig", {**SIZES, "languages": ["en"], "default_language": "en"}, TEXT),
    "bigbird": ("BigBirdConfig", {**SIZES, "attention_type": "original_full"}, TEXT),
    "longformer": ("LongformerConfig", {**SIZES, "attention_window": 8}, TEXT),
    "funnel": (
        "FunnelConfig",
        {
            "vocab_size": VOCABULARY,
            "d_model": HIDDEN,
            "block_sizes": [1, 1],
            "n_head": HEADS,
            "d_head": 12,
            "d_inner": NEURONS,
            "architectures": ["FunnelModel"],  # of two that the configuration serves
        },
        TEXT,
    ),
    "modernbert": (
        "ModernBertConfig",
        {**SIZES, "num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 2},
        TEXT,
    ),
    "t5": ("T5Config", {**T5, "is_encoder_decoder": False}, "T5EncoderModel"),
    "t5gated": ("T5Config", {**T5, "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False}, "T5EncoderModel"),
    "umt5": ("UMT5Config", {**T5, "is_encoder_decoder": False}, "UMT5EncoderModel"),
    "bart": ("BartConfig", BART, ENCODER),
    "mbart": ("MBartConfig", BART, ENCODER),
    "m2m": ("M2M100Config", BART, ENCODER),
    "marian": ("MarianConfig", {**BART, "decoder_start_token_id": 0}, ENCODER),
    "pegasus": ("PegasusConfig", BART, ENCODER),
    "cliptext": ("CLIPTextConfig", SIZES, "CLIPTextModel"),
    "sigliptext": ("SiglipTextConfig", SIZES, "SiglipTextModel"),
    "splinter": ("SplinterConfig", SIZES, TEXT),
    "tapas": ("TapasConfig", SIZES, TEXT),
    "eurobert": ("EuroBertConfig", ROTARY, TEXT),
    "nomic": ("NomicBertConfig", SIZES, TEXT),
    "jina": ("JinaEmbeddingsV3Config", SIZES, TEXT),
    "qwen3": ("Qwen3Config", {**ROTARY, "use_cache": False}, TEXT),
    "gpt2": ("GPT2Config", GPT, TEXT),
    "neox": ("GPTNeoXConfig", {**SIZES, "use_cache": False}, TEXT),
    "mra": ("MraConfig", {**SIZES, "block_per_row": 4}, TEXT),
    "window128": (
        "ModernBertConfig",
        {**SIZES, "local_attention": 128, "global_attn_every_n_layers": 2, "max_position_embeddings": 300},
        TEXT,
    ),
    "xlmrxl": ("XLMRobertaXLConfig", SIZES, TEXT),
    "bertgen": ("BertGenerationConfig", SIZES, TEXT),
    "layoutlm": ("LayoutLMConfig", {**SIZES, "max_2d_position_embeddings": 64}, TEXT),
    "lilt": ("LiltConfig", {**SIZES, "max_2d_position_embeddings": 64, "channel_shrink_ratio": 2}, TEXT),
    "markuplm": ("MarkupLMConfig", {**SIZES, "max_depth": 4, "xpath_unit_hidden_size": 4}, TEXT),
    "rocbert": (
        "RoCBertConfig",
        {**SIZES, "enable_pronunciation": False, "enable_shape": False, "concat_input": False},
        TEXT,
    ),
    "canine": (
        "CanineConfig",
        {**SIZES, "num_hash_buckets": 64, "local_transformer_stride": 8, "upsampling_kernel_size": 4},
        TEXT,
    ),
    "altcliptext": ("AltCLIPTextConfig", {**SIZES, "project_dim": HIDDEN}, "AltCLIPTextModel"),
    "chinesecliptext": ("ChineseCLIPTextConfig", SIZES, "ChineseCLIPTextModel"),
    "claptext": ("ClapTextConfig", SIZES, "ClapTextModel"),
    "groupvittext": ("GroupViTTextConfig", SIZES, "GroupViTTextModel"),
    "owlvittext": ("OwlViTTextConfig", SIZES, "OwlViTTextModel"),
    "gte": ("GteConfig", SIZES, TEXT),
    "esmc": ("EsmcConfig", SIZES, TEXT),
    "gemma3": ("Gemma3TextConfig", {**ROTARY, "use_cache": False, "sliding_window": 16}, TEXT),
    "gemma2": ("Gemma2Config", {**ROTARY, "use_cache": False, "sliding_window": 16}, TEXT),
    "llama": ("LlamaConfig", {**ROTARY, "use_cache": False}, TEXT),
    "mistral": ("MistralConfig", {**ROTARY, "use_cache": False, "sliding_window": 16}, TEXT),
    "olmo2": ("Olmo2Config", {**ROTARY, "use_cache": False}, TEXT),
    "cohere": ("CohereConfig", {**ROTARY, "use_cache": False}, TEXT),
    "phi": ("PhiConfig", {**SIZES, "use_cache": False}, TEXT),
    "falcon": ("FalconConfig", {**SIZES, "use_cache": False}, TEXT),
    "gptj": ("GPTJConfig", {**GPT, "rotary_dim": 8}, TEXT),
    "gptneo": (
        "GPTNeoConfig",
        {
            **SIZES,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "use_cache": False,
        },
        TEXT,
    ),
    "bloom": ("BloomConfig", {**SIZES, "n_layer": LAYERS, "n_head": HEADS, "use_cache": False}, TEXT),
    "mpt": (
        "MptConfig",
        {"vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": LAYERS, "max_seq_len": POSITIONS}
        | {"use_cache": False},
        TEXT,
    ),
    "opt": ("OPTConfig", {**SIZES, "ffn_dim": NEURONS, "word_embed_proj_dim": HIDDEN, "use_cache": False}, TEXT),
    "blenderbot": ("BlenderbotConfig", BART, ENCODER),
    "mvp": ("MvpConfig", BART, ENCODER),
    "plbart": ("PLBartConfig", BART, ENCODER),
    "led": ("LEDConfig", {**BART, "attention_window": 8, "max_encoder_position_embeddings": POSITIONS}, ENCODER),
    "longt5": ("LongT5Config", {**T5, "local_radius": 7, "is_encoder_decoder": False}, "LongT5EncoderModel"),
    "mt5": ("MT5Config", {**T5, "is_encoder_decoder": False}, "MT5EncoderModel"),
    "prophetnet": (
        "ProphetNetConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": 0,
            "num_encoder_layers": LAYERS,
            "num_encoder_attention_heads": HEADS,
            "encoder_ffn_dim": NEURONS,
            "num_decoder_layers": 1,
            "num_decoder_attention_heads": HEADS,
            "decoder_ffn_dim": NEURONS,
        },
        ENCODER,
    ),
    "vit": ("ViTConfig", IMAGE, "pixel_values"),
    "deit": ("DeiTConfig", IMAGE, "pixel_values"),
    "dinov2": ("Dinov2Config", IMAGE, "pixel_values"),
    "beit": ("BeitConfig", {**IMAGE, "use_relative_position_bias": True}, "pixel_values"),
    "yolos": ("YolosConfig", {**IMAGE, "image_size": [32, 32]}, "pixel_values"),
    "clipvision": ("CLIPVisionConfig", IMAGE, "pixel_values"),
    "siglipvision": ("SiglipVisionConfig", IMAGE, "pixel_values"),
    "swin": (
        "SwinConfig",
        {"image_size": 32, "patch_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        "pixel_values",
    ),
    "whisper": (
        "WhisperConfig",
        {**BART, "num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 32},
        "input_features",
    ),
    "wav2vec2": ("Wav2Vec2Config", {**SIZES, **SOUND}, "input_values"),
    "hubert": ("HubertConfig", {**SIZES, **SOUND}, "input_values"),
    "wavlm": ("WavLMConfig", {**SIZES, **SOUND, "num_buckets": 16, "max_bucket_distance": 32}, "input_values"),
}
GIVEN = {"pixel_values": (3, 32, 32), "input_features": (16, 64), "input_values": (400,)}  # what is no text, a row


class Wrapped(torch.nn.Module):  # type: ignore[misc]
    """A model of which one output is exported."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model


class LastState(Wrapped):
    """Token ids and mask in, the last hidden state out."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        given = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return given.last_hidden_state if hasattr(given, "last_hidden_state") else given[0]


class ImageState(Wrapped):
    """Pixels in, the last hidden state out."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).last_hidden_state


class SpectrumState(Wrapped):
    """A spectrogram in, the last hidden state out."""

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        return self.model(input_features).last_hidden_state


class SoundState(Wrapped):
    """A sound's samples in, the last hidden state out."""

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        return self.model(input_values).last_hidden_state


class Pooled(Wrapped):
    """Token ids and mask in, the mean of the real tokens' states out, one unit long: an embedding of the text."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        real = attention_mask[:, :, None].to(states.dtype)
        return torch.nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=-1)


class Logits(Wrapped):
    """Token ids and mask in, logits out: of classes, or of each token."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


class SpanLogits(Wrapped):
    """Token ids and mask in, logits of each token as an answer's first and as its last out."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        given = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return {"start_logits": given.start_logits, "end_logits": given.end_logits}


@dataclass(frozen=True)
class Head:
    """What a text model answers. task: transformers' AutoModelFor*, "" for the base model. outputs: of all tokens?"""

    task: str
    wrapper: type[Wrapped]
    outputs: Mapping[str, bool]
    labels: int = 5


STATE = {"last_hidden_state": True}
ANSWERS = {
    "states": Head("", LastState, STATE),
    "pooled": Head("", Pooled, {"embeddings": False}),
    "classes": Head("SequenceClassification", Logits, {"logits": False}),
    "tokens": Head("TokenClassification", Logits, {"logits": True}),
    "spans": Head("QuestionAnswering", SpanLogits, {"start_logits": True, "end_logits": True}, labels=2),
    "masks": Head("MaskedLM", Logits, {"logits": True}),
}
STATES: dict[str, type[Wrapped]] = {
    "pixel_values": ImageState,
    "input_features": SpectrumState,
    "input_values": SoundState,
}


def tokenizer() -> Tokenizer:
    """A tokenizer of one word an id."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(5, VOCABULARY))]
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


def built(name: str, attention: str, head: str = "states", seed: int = 0) -> torch.nn.Module:
    """The family `name` with random weights, larger ones than training starts from: attention that looks somewhere."""
    config_name, sizes, kind = FAMILIES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, config_name)(**sizes)
    config._attn_implementation = attention
    if task := ANSWERS[head].task:
        config.num_labels = ANSWERS[head].labels
        model = getattr(transformers, f"AutoModelFor{task}").from_config(config, attn_implementation=attention)
    elif kind in (TEXT, ENCODER, *GIVEN):
        model = transformers.AutoModel.from_config(config, attn_implementation=attention)
        model = model.encoder if kind in (ENCODER, "input_features") else model
    else:
        model = getattr(transformers, kind)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim > 1 else 0.05)
        if parameter.ndim == 1:
            parameter.data += 1.0 * (parameter.shape[0] in (HIDDEN,))
    return STATES.get(kind, ANSWERS[head].wrapper)(model).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="regular expression of families' names")
    parser.add_argument("--export", action="append", choices=EXPORTS, help="may be repeated; all by default")
    parser.add_argument("--head", action="append", choices=ANSWERS, help="may be repeated; states by default")
    parser.add_argument("--seed", type=int, action="append", help="of the weights; may be repeated; 0 by default")
    given = parser.parse_args()
    names = [name for name in FAMILIES if re.search(given.only, name)]
    asked = itertools.product(names, given.head or ["states"], given.export or EXPORTS, given.seed or [0])
    for name, head, export, seed in asked:
        folder = given.folder / "-".join([name, *[head] * (head != "states"), export, *[f"seed{seed}"] * (seed != 0)])
        if (folder / "model.onnx").is_file():
            continue
        try:
            make(name, head, export, folder, seed)
        except Exception as error:  # torch and transformers have no common base of what they raise
            print(f"{folder.name:<28}left out: {type(error).__name__} {one_line(error)[:100]}", flush=True)
            continue
        print(f"{folder.name:<28}{(folder / 'model.onnx').stat().st_size / 1e6:.1f} MB", flush=True)


def make(name: str, head: str, export: str, folder: Path, seed: int = 0) -> None:
    """Write one family to `folder`, with what turns texts into its inputs, or rows of them."""
    exporter, opset, attention = EXPORTS[export]
    kind = FAMILIES[name][2]
    if head != "states" and (kind in GIVEN or (kind != TEXT and ANSWERS[head].task)):
        raise ValueError(f"{name} has no head for {head}")
    model = built(name, attention, head, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write(model, folder / "model.onnx", (exporter, opset), kind, ANSWERS[head].outputs)
    if kind not in GIVEN:
        tokenizer().save(str(folder / "tokenizer.json"))
        return
    rows = np.random.default_rng(0).standard_normal((48, *GIVEN[kind])).astype(np.float32)
    np.savez(folder / "inputs.npz", allow_pickle=False, **{kind: rows})


def write(
    model: torch.nn.Module, path: Path, export: tuple[Exporter, int], kind: str, outputs: Mapping[str, bool] = STATE
) -> None:
    """Export `model`; rows of other sizes than the traced ones are checked.

    export: the exporter and its opset. outputs: by name, whether an output has an answer for each token.
    """
    exporter, opset = export
    if kind in GIVEN:
        rows = [{kind: torch.randn(batch, *GIVEN[kind]).numpy()} for batch in (2, 3, 1)]
        axes: dict[str, dict[int, str]] = {kind: {0: "batch"}, "last_hidden_state": {0: "batch"}}
    else:
        rows = [
            {
                "input_ids": torch.randint(5, VOCABULARY, size).numpy(),
                "attention_mask": torch.ones(size, dtype=torch.long).numpy(),
            }
            for size in ((2, 8), (3, 16), (1, 32))
        ]
        tokens = {0: "batch", 1: "sequence"}
        axes = {"input_ids": tokens, "attention_mask": tokens}
        axes |= {output: tokens if of_tokens else {0: "batch"} for output, of_tokens in outputs.items()}
    with quiet():
        export_module(model, path, rows[0], rows[1:], axes, exporter=exporter, opset=opset)


if __name__ == "__main__":
    main()
