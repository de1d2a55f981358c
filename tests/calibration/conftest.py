"""A tokenizer small enough to count in the head: one token a letter, [CLS] and [SEP] around."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

LETTERS = "abcdefghij"
VOCABULARY = {token: number for number, token in enumerate(("[CLS]", "[SEP]", "[UNK]", "[PAD]", *LETTERS))}


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizer.json: [CLS] 0, [SEP] 1, [UNK] 2, [PAD] 3, a 4 ... j 13; words are letters."""
    backend = tokenizers.Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    folder = tmp_path_factory.mktemp("letters")
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "model_max_length": 20}')
    return folder
