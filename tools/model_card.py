"""Measure the reference model through ONNX Runtime, and write its card."""

import json
from pathlib import Path

from onnxslim_bert.calibration.dataset import Dataset
from onnxslim_bert.calibration.load_tokenizer import load_tokenizer
from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.calibration.working import Working
from onnxslim_bert.export.torch_export import OPSETS
from onnxslim_bert.proof.evaluation import evaluate
from onnxslim_bert.proof.intervals import wilson

CARD = """\
---
license: apache-2.0
language: en
pipeline_tag: text-classification
---
# sst2-tiny

A small BERT that tells whether an English sentence about a film is positive. It is a real trained encoder, small enough
to be kept in a repository: the reference model of onnxslim-bert, for its tests and demonstrations.

| | |
|---|---|
| architecture | BertForSequenceClassification, {layers} layers, width {hidden}, FFN {ffn}, {positions} positions |
| attention | {heads} heads of {head_dim} |
| labels | 0 negative, 1 positive |
| tokenizer | WordPiece, lower case, {vocabulary:,} pieces |
| model.onnx | float32, {size:.1f} MB, torch.export exporter, SDPA attention, opset {opset}, any batch and length |
| accuracy on SST-2 dev | {sst2} |
| accuracy on `reviews`, evaluation half | {reviews} |

Both accuracies are of model.onnx itself in ONNX Runtime on the CPU, every row at its natural length, with 95 % Wilson
intervals. `reviews`, built into onnxslim-bert, is about meals, books and appliances too; the teacher gets 80.7 % of it.
To measure again:

    python tools/train_reference.py --card-only --data <folder of SST-2's train.tsv and dev.tsv>

## How it was made

By `tools/train_reference.py`, in about eight minutes on one core. The teacher is MiniLM-L6-H384 (Apache-2.0) fine-tuned
on SST-2, 89.3 % on dev. The student was cut out of it: layers {kept} of six, in each the {heads} heads and {ffn} FFN
units that write most, weights and embeddings in the {hidden} principal directions of the hidden states, and every
LayerNorm fitted by least squares. It was then trained to give the teacher's logits and hidden states on the sentences
of SST-2 train, some words exchanged for similar ones: AdamW, epochs: {epochs}. It never saw a label. No row of dev was
used in training, but the recipe was chosen with its dev accuracy in sight.

The vocabulary is the teacher's, less what is rare: kept are the pieces that SST-2 train uses, ASCII characters, and
the commonest others.

Data: SST-2, Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank"
(https://aclanthology.org/D13-1170), in GLUE's form. No text of it is included.

## Use and limits

For tests, benchmarks and demonstrations of model compression. Not for decisions about people or products: it knows
short sentences of English film reviews from before 2005, has no neutral class, is easily wrong about irony,
comparison and rare words, and has the biases of its data and its teacher. Accents are dropped; other letters outside
ASCII are mostly unknown to it.

Licence: Apache-2.0.
"""


def write_card(folder: Path, dev: Path, layers: tuple[int, ...], epochs: int) -> str:
    """Write README.md into the model's folder; gives its measured lines.

    dev: SST-2's dev.tsv. layers, epochs: what it was trained with.
    """
    model = folder / "model.onnx"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    sst2 = accuracy(folder, load_dataset(str(dev), "evaluation"))
    reviews = accuracy(folder, load_dataset("reviews", "evaluation"))
    card = CARD.format(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        head_dim=config["hidden_size"] // config["num_attention_heads"],
        ffn=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        vocabulary=config["vocab_size"],
        size=model.stat().st_size / 1e6,
        opset=OPSETS["dynamo"],
        kept=", ".join(str(layer + 1) for layer in layers),
        epochs=epochs,
        sst2=sst2,
        reviews=reviews,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return f"accuracy on SST-2 dev: {sst2}\naccuracy on reviews: {reviews}"


def accuracy(folder: Path, dataset: Dataset) -> str:
    """Of model.onnx on a labelled data set, in percent, with its interval and the count."""
    answers = evaluate(folder / "model.onnx", dataset, Working(tokenizer=load_tokenizer(folder))).predictions()
    right = int((answers == dataset.labels).sum())
    share = wilson(right, len(dataset))
    return f"{share.value:.2f} % ({share.low:.1f} to {share.high:.1f}; {right} of {len(dataset)})"
