"""The model's own tokenizer: rows of tokens, with the places of tokens in their texts where it tells them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from onnxslim_bert.errors import DataError
from onnxslim_bert.model.role_names import Named

Read = TypeVar("Read", bound=Callable[..., object])


class TokenRow(NamedTuple):
    """One row of tokens, special tokens included: ids and segment numbers, both [length]."""

    ids: list[int]
    type_ids: list[int]


class PlacedRow(NamedTuple):
    """One row of tokens with their places in the text: a sentence of words, or a question with its passage.

    places: [length], each token's first character and the one behind its last, counted in its word or in the passage;
    None for tokens of neither, special tokens for instance.
    words: [length], at the first token of each word its number in the sentence, -1 at all others; empty for a passage.
    Example: of the words "unhappy", "\u200b" and "man" the tokens [CLS] un ##happy man [SEP] have -1, 0, -1, 2, -1.
    """

    ids: list[int]
    type_ids: list[int]
    places: Sequence[tuple[int, int] | None]
    words: Sequence[int] = ()


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer: it turns texts into rows of token ids.

    vocab_size: tokens, added ones included; ids are below it.
    pad_id: the id that fills a batch.
    max_length: tokens in a row that the tokenizer's own configuration allows.
    mask_id: the id that stands for a masked token; None where there is none.
    file: the tokenizer.json that it was read from; None when there is none.
    windows: (text, None, max_length, 0) -> the row of one text, or (question, passage, max_length, shared) -> the rows
    of the question with each window of the passage, of which `shared` tokens are also in the next. None where tokens
    have no places: of tokenizers that are written in Python.
    sentence: (words, max_length) -> the row of a sentence, each word read by itself; None as above.
    inputs: the model's inputs that the user names, by role; those that are not named are found (`input_roles`).
    """

    vocab_size: int
    pad_id: int
    max_length: int
    _encode: Callable[[Sequence[tuple[str, ...]], int], list[TokenRow]]
    file: Path | None = None
    inputs: Named = field(default_factory=dict)
    windows: Callable[[str, str | None, int, int], list[PlacedRow]] | None = None
    sentence: Callable[[Sequence[str], int], PlacedRow] | None = None
    mask_id: int | None = None

    def encode(self, texts: Sequence[tuple[str, ...]], max_length: int) -> list[TokenRow]:
        """Rows of one or two texts to ids, unpadded; the longer text of a pair is cut first to fit `max_length`."""
        return self._encode(texts, min(max_length, self.max_length))

    def are_cut(self, texts: Sequence[tuple[str, ...]], max_length: int) -> list[bool]:
        """For each row whether it has more tokens than `max_length`, or than the tokenizer's own limit."""
        return _are_cut(self._encode, texts, min(max_length, self.max_length))

    def encode_words(self, rows: Sequence[tuple[str, ...]], max_length: int) -> list[PlacedRow]:
        """Sentences of words to ids, each word read by itself, as transformers does for words that are split already.

        `words` marks the first piece of each word; a word that is cut off, or that has no pieces at all, has no mark.
        """
        return self._sentences(rows, min(max_length, self.max_length))

    def words_are_cut(self, rows: Sequence[tuple[str, ...]], max_length: int) -> list[bool]:
        """As `are_cut`, of sentences of words."""
        return _are_cut(self._sentences, rows, min(max_length, self.max_length))

    def encode_places(self, rows: Sequence[tuple[str, ...]], max_length: int) -> list[PlacedRow]:
        """Rows of texts to ids, the texts of each joined by spaces, with the place of each token."""
        windows, limit = self._placed(self.windows), min(max_length, self.max_length)
        return [windows(" ".join(texts), None, limit, 0)[0] for texts in rows]

    def encode_passage(self, question: str, passage: str, max_length: int) -> list[PlacedRow]:
        """The rows of a question with each window of its passage, of at most `max_length` tokens.

        A quarter of `max_length` is shared with the next window. Raises DataError without `windows`, or when the
        question leaves the passage no room.
        """
        limit = min(max_length, self.max_length)
        return self._placed(self.windows)(question, passage, limit, limit // 4)

    def _sentences(self, rows: Sequence[tuple[str, ...]], limit: int) -> list[PlacedRow]:
        sentence = self._placed(self.sentence)
        return [sentence(words, limit) for words in rows]

    @staticmethod
    def _placed(read: Read | None) -> Read:
        if read is None:
            raise DataError(
                "words, masks and passages need a tokenizer that says where each token lies: add a tokenizer.json"
            )
        return read

    def check_fits(self, rows: int | None) -> None:
        """Raise DataError when the model's embedding has fewer `rows` than there are tokens; None: not known."""
        if rows is not None and self.vocab_size > rows:
            raise DataError(
                f"tokenizer has {self.vocab_size} tokens, embedding has {rows} rows: "
                "needed the tokenizer that this model was trained with"
            )


def _are_cut(
    encode: Callable[[Sequence[tuple[str, ...]], int], Sequence[TokenRow | PlacedRow]],
    rows: Sequence[tuple[str, ...]],
    limit: int,
) -> list[bool]:
    full = [place for place, row in enumerate(encode(rows, limit)) if len(row.ids) >= limit]
    longer = encode([rows[place] for place in full], limit + 1) if full else []
    over = {place for place, row in zip(full, longer, strict=True) if len(row.ids) > limit}
    return [place in over for place in range(len(rows))]
