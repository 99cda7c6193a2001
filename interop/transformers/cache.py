"""pairform's cache as a cache of transformers."""

import torch
from torch import Tensor
from transformers.cache_utils import Cache as TransformersCache

from pairform.blocks.cache import Cache
from pairform.registry import InputError, Problem


class PairformCache(TransformersCache):
    """What transformers' `generate` asks of a cache, about one of pairform's.

    cache: the keys, values and states; replaced when rows are reordered, repeated or dropped.
    """

    def __init__(self, cache: Cache | None = None) -> None:
        super().__init__(layers=[])
        self.cache = Cache() if cache is None else cache

    def __len__(self) -> int:
        return len(self.cache.own)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.cache.length

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1  # none: it grows

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_initialized(self) -> bool:
        return self.cache.batch is not None

    @property
    def is_croppable(self) -> bool:
        """Whether tokens can be removed: a state has no earlier value, and a window has dropped the tokens before it."""
        return not self.cache.states and all(part.window is None for part in self.cache.own.values())

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the newest tokens, whose number is given as a negative one, as transformers does."""
        if tokens_to_remove == 0:
            return
        if tokens_to_remove > 0:
            raise InputError(Problem("tokens_to_remove", str(tokens_to_remove), "0, or a negative number of tokens"))
        if not self.is_croppable:
            found = "a decoder with windows or recurrent states, which do not keep the tokens before a removed one"
            raise InputError(Problem("past_key_values", found, "a decoder that keeps all tokens to remove some of them"))
        self.cache.crop(self.cache.length + tokens_to_remove)

    def activate_past_recording(self) -> None:
        """Nothing to record: `crop` refuses what it cannot undo."""

    def select(self, rows: Tensor) -> None:
        if self.cache.batch is not None:
            self.cache = self.cache.rows(rows)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.select(torch.arange(self.cache.batch or 0, device=self.cache.device)[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.cache = self.cache.spread(repeats, share=False)

    def reset(self) -> None:
        self.cache = Cache()
