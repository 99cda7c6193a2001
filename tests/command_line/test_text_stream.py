"""Text appears while it is generated, in whole characters, and is the same in the end."""

import random
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pairform.cli.generation.text_stream import TextStream

TEXTS = ["the quick brown fox", "  two\nlines, and spaces  ", "héllo 漢字 \U0001f469‍\U0001f680!", "a\ufffdb", ""]


def byte_level() -> Tokenizer:
    """A token for each byte, as in GPT-2."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<eos>"])
    return made


def byte_fallback() -> Tokenizer:
    """Words with a mark for the space before them and bytes for all else, as in Llama and Gemma."""
    words = ["▁the", "▁quick", "▁brown", "▁fox", "▁", "\n", "h", "l", "o", "a", "b"]
    vocabulary = {word: number for number, word in enumerate([*(f"<0x{byte:02X}>" for byte in range(256)), *words])}
    made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    made.add_special_tokens(["<eos>"])
    return made


def word_piece() -> Tokenizer:
    words = ["[UNK]", "the", "quick", "##er", "fox", ",", ".", "a", "##b", "two", "lines", "and"]
    made = Tokenizer(models.WordPiece({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(["<eos>"])
    return made


@pytest.mark.parametrize("make", [byte_level, byte_fallback, word_piece])
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_text(make: Callable[[], Tokenizer], text: str) -> None:
    tokenizer = make()
    end = tokenizer.token_to_id("<eos>")
    assert end is not None
    ids = tokenizer.encode(text).ids
    for generated in (ids, [*ids[: len(ids) // 2], end, *ids[len(ids) // 2 :], end], [end, end, *ids]):
        stream = TextStream(lambda some: tokenizer.decode(some, skip_special_tokens=True))
        pieces = [stream.put(token) for token in generated]
        rest = stream.end()
        assert "".join(pieces) + rest == tokenizer.decode(generated, skip_special_tokens=True)
        if make is not word_piece and text and "\ufffd" not in text:
            assert not rest
            assert all("\ufffd" not in piece for piece in pieces)
            assert sum(map(bool, pieces)) > 3


def test_the_cost_of_a_token_does_not_grow() -> None:
    tokenizer = byte_level()
    sizes = []

    def decode(ids: list[int]) -> str:
        sizes.append(len(ids))
        return tokenizer.decode(ids)

    stream = TextStream(decode)
    for token in tokenizer.encode("".join(random.Random(0).choices("abc é\n", k=300))).ids:
        stream.put(token)
    assert max(sizes) < 8
