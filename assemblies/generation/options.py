"""The options of `generate`, and their validation."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from pairform.assemblies.generation.beam_search import BeamSearch
from pairform.assemblies.generation.decoding import cacheable
from pairform.assemblies.generation.forced_tokens import ForcedTokens
from pairform.assemblies.generation.sampling import Choose, chooser
from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.arguments import described, flag, integer
from pairform.assemblies.specs.tokens import TokenSpec
from pairform.blocks.cache import Cache
from pairform.registry import InputError, Problem

LONGEST = 1 << 20
"""The largest number of new tokens in one call. Their memory is allocated before the first step."""
Streamer: TypeAlias = Callable[[Tensor], object]
"""Called with the new token of every row, `[batch]`, after each step."""


@dataclass(frozen=True)
class GenerationOptions:
    """The options of `Model.generate`, which documents them."""

    max_new_tokens: int
    do_sample: bool
    temperature: float | None
    top_k: int | None
    top_p: float | None
    seed: int | None
    eos_token_id: int | Sequence[int] | None
    use_cache: bool
    streamer: Streamer | None
    compile: bool
    num_beams: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    num_return_sequences: int
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None

    def checked(self, model: ModelParts, cache: Cache | None) -> "ResolvedOptions":
        """The options resolved for a model.

        Raises:
            InputError: options of the wrong type, out of range, or that exclude each other.
        """
        vocabulary, tokens = model.spec.vocabulary_of("decoder"), model.spec.tokens
        longest = integer("max_new_tokens", self.max_new_tokens, 1, LONGEST)
        ends = tokens.ends if self.eos_token_id is None else token_ids("eos_token_id", self.eos_token_id, vocabulary)
        search = BeamSearch(self.num_beams, self.length_penalty, self.early_stopping, self.num_return_sequences)
        search.check_size(vocabulary, longest)
        for name in ("use_cache", "do_sample", "compile"):
            flag(name, getattr(self, name))
        self.check_streamer()
        self.check_cache(model, cache)
        device = next(model.parameters()).device
        choose = chooser(self.do_sample, self.temperature, self.top_k, self.top_p, self.seed, device)
        # without end tokens no row ends early, and the filler is never visible
        filler = tokens.pad if tokens.pad is not None else (ends[0] if ends else 0)
        forced = self.forced(tokens, vocabulary)
        return ResolvedOptions(longest, ends, filler, search if self.num_beams > 1 else None, choose, forced)

    def forced(self, tokens: TokenSpec, vocabulary: int) -> ForcedTokens:
        """The tokens that are forced: those of the call, else those of the spec."""
        first, last = self.forced_bos_token_id, self.forced_eos_token_id
        return ForcedTokens(
            tokens.forced_bos if first is None else integer("forced_bos_token_id", first, 0, vocabulary - 1),
            tokens.forced_ends if last is None else token_ids("forced_eos_token_id", last, vocabulary),
            self.max_new_tokens,
        )

    def check_streamer(self) -> None:
        if self.streamer is not None and not callable(self.streamer):
            expected = "a function that is called with each step's tokens, `[batch]`"
            remedy = "For a streamer of transformers pass its `.put`."
            raise InputError(Problem("streamer", described(self.streamer), expected, remedy))
        if self.num_beams > 1:
            for name, given in (("do_sample", self.do_sample), ("streamer", self.streamer)):
                if given:
                    raise InputError(Problem(name, f"{name} with num_beams={self.num_beams}", "one or the other"))

    def check_cache(self, model: ModelParts, cache: Cache | None) -> None:
        if cache is not None and not self.use_cache:
            raise InputError(Problem("cache", "a cache with use_cache=False", "one or the other"))
        if cache is not None and not cacheable(model):
            found = "a decoder whose tokens attend to later ones, so that every step recomputes all of them"
            raise InputError(Problem("cache", found, "no cache, or a causal mask"))


@dataclass(frozen=True)
class ResolvedOptions:
    """`GenerationOptions` for one model.

    ends:   end-of-sequence tokens.
    filler: the token that fills a row after its end.
    search: beam search; None for greedy decoding or sampling.
    choose: chooses the next tokens from logits.
    forced: the tokens that are generated whatever their scores.
    """

    max_new_tokens: int
    ends: tuple[int, ...]
    filler: int
    search: BeamSearch | None
    choose: Choose
    forced: ForcedTokens


def token_ids(name: str, ids: Any, vocabulary: int) -> tuple[int, ...]:
    """The option `name`, one ID, several or a tensor of them, as a tuple."""
    if isinstance(ids, str | bytes):
        raise InputError(Problem(name, described(ids), "a token id, or a list of them"))
    try:
        values = [ids] if not isinstance(ids, Iterable) or getattr(ids, "ndim", 1) == 0 else [*ids]
    except TypeError:
        values = [ids]
    return tuple(integer(name, value, 0, vocabulary - 1) for value in values)
