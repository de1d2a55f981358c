"""A WordPiece tokenizer cut down to the pieces that a set of texts uses, and the commonest others."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer

from onnxslim_bert.calibration.vocabulary import keep_tokens

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def small_vocabulary(tokenizer: dict[str, Any], texts: Iterable[str], size: int) -> tuple[dict[str, Any], list[int]]:
    """The smaller tokenizer.json, and the old id of each of its pieces.

    Kept: the specials, every piece of `texts` (which therefore split as before), ASCII characters alone and inside a
    word, and then the first ASCII pieces of the old vocabulary, which is in order of frequency.

    tokenizer: a tokenizer.json, parsed. ValueError when `size` has no room for what must be kept.
    """
    old: dict[str, int] = tokenizer["model"]["vocab"]
    full = Tokenizer.from_str(json.dumps(tokenizer))
    full.no_truncation()
    kept = {piece for row in full.encode_batch(list(texts)) for piece in row.tokens} | set(SPECIALS)
    kept |= {piece for piece in old if piece.isascii() and len(piece.removeprefix("##")) == 1}
    if len(kept) > size:
        raise ValueError(f"a vocabulary of {size} has no room for the {len(kept)} pieces that the texts use")
    common = [piece for piece in sorted(old.keys() - kept, key=old.__getitem__) if piece.isascii() and piece[0] != "["]
    kept |= set(common[: size - len(kept)])
    small, old_ids = keep_tokens(tokenizer | {"truncation": None, "padding": None}, (old[piece] for piece in kept))
    return small, old_ids.tolist()
