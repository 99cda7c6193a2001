"""Tokens that are generated whatever their scores, as by transformers' `forced_bos_token_id` and `forced_eos_token_id`."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class ForcedTokens:
    """Which tokens are forced.

    first: the first generated token after a prompt of one token, the start token.
    last:  the tokens of which one is the last if `most` tokens are generated.
    most:  the largest number of new tokens.
    """

    first: int | None
    last: tuple[int, ...]
    most: int

    def __call__(
        self, scores: Float[Tensor, "batch vocabulary"], prompt: int, generated: int
    ) -> Float[Tensor, "batch vocabulary"]:
        """The scores of the next token: where it is forced, 0 for it and minus infinity for all others.

        Args:
            scores: logits or log-probabilities.
            prompt: the number of tokens in the prompt.
            generated: the number of tokens generated before.
        """
        if self.first is not None and prompt + generated == 1:
            scores = only(scores, (self.first,))
        return only(scores, self.last) if self.last and generated == self.most - 1 else scores


def only(scores: Float[Tensor, "batch vocabulary"], tokens: tuple[int, ...]) -> Float[Tensor, "batch vocabulary"]:
    forced = scores.new_full(scores.shape, -float("inf"))
    forced[:, list(tokens)] = 0.0
    return forced
