"""Comparing a converted model with ours: the logits after random texts, and the greedy tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pairform.assemblies.modeling.model import Model

SEEDED = 0
NEW = 8
"""Tokens that are generated after each random beginning."""
LENGTHS = ((2, 1), (7, 3), (19, 11), (48, 24))
"""Tokens of source and target. Targets are random too: generated ones repeat, and equal values hide wrong attention."""


@dataclass(frozen=True)
class Comparison:
    """largest: difference of a logit. scale: the largest logit. texts: how many, of which `equal` have equal greedy tokens."""

    largest: float
    scale: float
    texts: int
    equal: int

    def __str__(self) -> str:
        return (
            f"logits differ by at most {self.largest:.2g} (they reach {self.scale:.2g}); "
            f"greedy tokens are equal in {self.equal} of {self.texts} texts"
        )


def random_tokens(model: Model, known: int, rows: int, length: int, generator: torch.Generator) -> Int[Tensor, "rows length"]:
    """Tokens without special ones and those of pictures."""
    spec = model.spec
    special = {token for part in spec.stacks for _, token in spec.tokens_of(part).named()}
    for stack in spec.stacks.values():
        end = stack.embedding.document().get("end_of_image")
        special |= set() if end is None else {end}
        if stack.vision is not None:
            special |= {stack.vision.image_token, stack.vision.begin_token or 0, stack.vision.end_token or 0}
    plain = torch.tensor([token for token in range(known) if token not in special])
    return plain[torch.randint(len(plain), (rows, length), generator=generator)]


@torch.no_grad()
def compare(model: Model, translator: Any, vocabulary: Sequence[str], most: int | None, rows: int = 2) -> Comparison:
    """Compare `translator`, which was converted from `model`.

    vocabulary: its tokens, by ID.
    most: the largest number of tokens of a source or a target; None: any.
    """
    generator = torch.Generator().manual_seed(SEEDED)
    numbers = {token: number for number, token in enumerate(vocabulary)}
    start = model.spec.tokens.first
    assert start is not None, "checked: the tokenizer's is the same"
    largest = scale = 0.0
    texts = equal = 0
    new = NEW if most is None else min(NEW, most)
    for length, begun in LENGTHS:
        if most is not None:
            length, begun = min(length, most), max(min(begun, most - new - 1), 0)
        source = random_tokens(model, len(vocabulary), rows, length, generator)
        prefix = random_tokens(model, len(vocabulary), rows, begun, generator)
        found = translator.translate_batch(
            [[vocabulary[token] for token in row] for row in source.tolist()],
            target_prefix=[[vocabulary[token] for token in row] for row in prefix.tolist()],
            beam_size=1,
            max_input_length=0,
            min_decoding_length=0,
            max_decoding_length=begun + new,
            return_logits_vocab=True,
        )
        prompt = torch.cat((torch.full((rows, 1), start), prefix), 1)
        ours = model.generate(source, torch.ones_like(source), decoder_input_ids=prompt, max_new_tokens=new)
        for row, result in enumerate(found):
            tokens = [numbers[token] for token in result.hypotheses[0]][begun:]
            read = torch.cat((prompt[row], torch.tensor(tokens, dtype=torch.long)))[None]
            whole = model(source[row : row + 1], torch.ones_like(source[:1]), read).logits
            assert whole is not None
            theirs = torch.stack([torch.from_numpy(np.array(step)) for step in result.logits[0]])
            mine = whole[0, : len(theirs), : theirs.shape[1]]
            seen = theirs > -1e30  # others are suppressed
            largest = max(largest, float(((theirs - mine) * seen)[seen].abs().max()))
            scale = max(scale, float(mine.abs().max()))
            ends = set(model.spec.tokens.ends)
            expected: list[int] = ours[row, begun + 1 :].tolist()
            stop = next((place for place, token in enumerate(expected) if token in ends), len(expected))
            texts, equal = texts + 1, equal + (tokens == expected[:stop])
    return Comparison(largest, scale, texts, equal)
