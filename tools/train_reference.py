"""Make models/sst2-tiny, the reference model: a small real BERT, distilled from a larger one on SST-2's sentences.

Two stages: the student is cut out of the teacher (shrink_bert.py), and learns to answer as the teacher does, layer by
layer, on sentences in which some words are exchanged for similar ones. It never sees a label, nor a row of dev.

Needs the [export] extra. Eight minutes on one core; the same versions on the same kind of processor give the same
model.
"""

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from model_card import write_card
from shrink_bert import Size, run, shrink
from small_vocabulary import SPECIALS, small_vocabulary
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertForSequenceClassification

from onnxslim_bert.calibration.loading import load_dataset
from onnxslim_bert.export.hugging_face import export_encoder

FOLDER = Path(__file__).parents[1] / "models" / "sst2-tiny"
SIZE = Size(layers=(0, 1, 3, 5), hidden=192, ffn=384, positions=128)
VOCABULARY = 12_000
SAMPLE = 1_000  # sentences on which the student is cut out of the teacher
BATCH = 64
LEARNING_RATE = 5e-4
WARM_UP = 0.06  # of all steps
EXCHANGED = 0.15  # of the words, on average
NEIGHBOURS = 8  # a word is exchanged for one of so many nearest ones


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if not options.card_only:
        with tempfile.TemporaryDirectory() as temporary:
            checkpoint = options.checkpoint or Path(temporary)
            train(options.teacher, options.data / "train.tsv", checkpoint, options.epochs)
            publish(checkpoint, options.output)
    print(write_card(options.output, options.data / "dev.tsv", SIZE.layers, options.epochs))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("ONNXSLIM_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=data and Path(data) / "sst2",
        required=not data,
        help="folder of train.tsv and dev.tsv [default: $ONNXSLIM_DATA/sst2]",
    )
    parser.add_argument("--teacher", type=Path, help="Hugging Face folder of a BERT fine-tuned on SST-2")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write [default: models/sst2-tiny]")
    parser.add_argument("--checkpoint", type=Path, help="keep the student here as a Hugging Face folder")
    parser.add_argument("--epochs", type=int, default=1, help="[default: 1]")
    parser.add_argument("--threads", type=int, default=1, help="[default: 1]")
    parser.add_argument("--seed", type=int, default=0, help="[default: 0]")
    parser.add_argument("--card-only", action="store_true", help="only measure the model and write its card")
    options = parser.parse_args()
    if not (options.teacher or options.card_only):
        parser.error("--teacher is needed to train")
    return options


def train(teacher_folder: Path, rows: Path, checkpoint: Path, epochs: int) -> None:
    """Distil the teacher on the texts of `rows` into the Hugging Face folder `checkpoint`, saved after every epoch."""
    texts = [text for (text,) in load_dataset(str(rows), "calibration").texts]
    full = json.loads((teacher_folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer, old_ids = small_vocabulary(full, texts, VOCABULARY)
    sentences = [row.ids for row in Tokenizer.from_str(json.dumps(tokenizer)).encode_batch(texts)]
    pieces = torch.tensor(old_ids)

    teacher = BertForSequenceClassification.from_pretrained(teacher_folder).eval()
    sample = [sentences[index] for index in torch.randperm(len(sentences))[:SAMPLE]]
    student, basis = shrink(teacher, pieces, list(batches(sample)), SIZE)
    print(f"{sum(values.numel() for values in student.parameters()) / 1e6:.2f} M parameters", flush=True)

    save_tokenizer(checkpoint, tokenizer)
    for epoch in distil(teacher, student, basis, pieces, sentences, epochs):
        student.save_pretrained(checkpoint)
        print(f"epoch {epoch} saved", flush=True)


def distil(
    teacher: Any, student: Any, basis: Tensor, pieces: Tensor, sentences: Sequence[list[int]], epochs: int
) -> Iterator[int]:
    """Train the student in place; yields the number of every epoch that is done."""
    similar = nearest(teacher.bert.embeddings.word_embeddings.weight.detach()[pieces])
    widen = [nn.Linear(basis.shape[1], basis.shape[0]) for _ in levels()]
    for linear in widen:
        linear.weight.data.copy_(basis)
        linear.bias.data.zero_()
    parameters = list(nn.ModuleList([student, *widen]).parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [values for values in parameters if values.ndim > 1]},
            {"params": [values for values in parameters if values.ndim == 1], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        fused=True,
    )
    steps = epochs * math.ceil(len(sentences) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: triangle(step / steps))

    start, step, recent = time.monotonic(), 0, 0.0
    for epoch in range(1, epochs + 1):
        student.train()
        for ids in batches(sentences):
            loss = mismatch(teacher, student, widen, pieces, exchange(ids, similar))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            recent += (loss.item() - recent) / min(step, 100)
            if step % 100 == 0:
                passed = time.monotonic() - start
                left = passed * (steps - step) / step
                print(f"step {step} of {steps}, loss {recent:.3f}, {passed:.0f} s, {left:.0f} s left", flush=True)
        yield epoch


def mismatch(teacher: Any, student: Any, widen: Sequence[Any], pieces: Tensor, ids: Tensor) -> Tensor:
    """The loss on one batch [rows, length]: squared error of the logits, and of the hidden states.

    The states' error is relative to their variance, after a linear map to the teacher's width, mean over the levels.
    """
    real = ids > 0
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            told = run(teacher, pieces[ids])
        answer = run(student, ids)
    loss = nn.functional.mse_loss(answer.logits.float(), told.logits.float())
    for level, linear, states in zip(levels(), widen, answer.hidden_states, strict=True):
        wanted = told.hidden_states[level][real].float()
        loss = loss + (linear(states[real].float()) - wanted).square().mean() / wanted.var() / len(widen)
    return loss


def levels() -> list[int]:
    """The teacher's hidden states that the student's own stand for: the embeddings', then those of the kept layers."""
    return [0, *(index + 1 for index in SIZE.layers)]


def batches(sentences: Sequence[list[int]]) -> Iterator[Tensor]:
    """All sentences once, in random order, those of a batch of about one length: padded ids [<= BATCH, length]."""
    order = torch.randperm(len(sentences)).tolist()
    groups = []
    for chunk in split(order, 50 * BATCH):
        groups += split(sorted(chunk, key=lambda row: len(sentences[row])), BATCH)
    for index in torch.randperm(len(groups)).tolist():
        rows = [torch.tensor(sentences[row]) for row in groups[index]]
        yield nn.utils.rnn.pad_sequence(rows, batch_first=True)


def split(rows: list[int], size: int) -> list[list[int]]:
    """In groups of `size`; the last may be smaller."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def exchange(ids: Tensor, similar: Tensor) -> Tensor:
    """Some pieces of every row for similar ones; how many is random from row to row, from none to 2 EXCHANGED."""
    share = 2 * EXCHANGED * torch.rand(len(ids), 1)
    chosen = (torch.rand(ids.shape) < share) & (ids >= len(SPECIALS))
    return torch.where(chosen, similar[ids, torch.randint(NEIGHBOURS, ids.shape)], ids)


def nearest(table: Tensor) -> Tensor:
    """The NEIGHBOURS most similar pieces of every piece, by cosine, specials excluded [vocabulary, NEIGHBOURS]."""
    unit = nn.functional.normalize(table, dim=1)
    found = []
    for rows in torch.arange(len(unit)).split(1_000):
        cosine = unit[rows] @ unit.T
        cosine[:, : len(SPECIALS)] = -1.0
        cosine[torch.arange(len(rows)), rows] = -1.0
        found.append(cosine.topk(NEIGHBOURS).indices)
    return torch.cat(found)


def triangle(progress: float) -> float:
    """The learning rate's factor: up to 1 at the end of the warm-up, then down to 0 at the end."""
    return min(progress / WARM_UP, (1 - progress) / (1 - WARM_UP))


def save_tokenizer(folder: Path, tokenizer: dict[str, Any]) -> None:
    """tokenizer.json and its configuration, as Hugging Face folders hold them."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "BertTokenizer",
        "model_type": "bert",
        "model_max_length": SIZE.positions,
        "do_lower_case": True,
        **{f"{name[1:-1].lower()}_token": name for name in SPECIALS},
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def publish(checkpoint: Path, folder: Path) -> None:
    """The folder that is committed: model.onnx, tokenizer and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    export_encoder(checkpoint, folder / "model.onnx", overwrite=True)
    shutil.copyfile(checkpoint / "config.json", folder / "config.json")


if __name__ == "__main__":
    main()
