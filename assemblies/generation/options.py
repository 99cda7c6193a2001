"""The settings of one call of `generate`, and their validation."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pairform.assemblies.generation.decoding import cacheable
from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.arguments import described, flag, integer, number
from pairform.assemblies.modeling.generate_arguments import GenerateArguments
from pairform.assemblies.specs.generation import LONGEST, TOKENS, GenerationSpec
from pairform.assemblies.specs.generation_names import UNSUPPORTED
from pairform.assemblies.specs.tokens import TokenSpec
from pairform.registry import InputError, Problem, SpecError

DEFAULT_NEW_TOKENS = 20
POWER = 30
"""The largest power of ten for `length ** length_penalty`, to stay in float32's range."""
COLDEST = 1e-6
"""The lowest temperature. Dividing logits by much less would exceed float32's range."""
SEEDS = (-(1 << 63), (1 << 64) - 1)
"""The smallest and the largest seed that torch accepts."""
OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")


def settings_of(model: ModelParts, arguments: GenerateArguments, as_output: bool | None) -> GenerationSpec:
    """The settings of a call: those given by name, else in `generation_config`, else the model's, else the defaults.

    as_output: `return_dict_in_generate`.

    Raises:
        InputError: settings of the wrong type, out of range, that exclude each other, or that are not supported.
    """
    named: Mapping[str, Any] = {**arguments, "return_dict_in_generate": as_output}
    given = {name: value for name, value in named.items() if name in GenerationSpec.model_fields and value is not None}
    try:
        by_name = GenerationSpec(**given)
        config = GenerationSpec.of(arguments.get("generation_config"))
        settings = GenerationSpec.of(model.generation).updated(config).updated(by_name)
    except SpecError as error:
        raise InputError(error.problems) from None
    if unsupported := settings.unsupported:
        remedy = "Leave it out: `without` gives settings, such as the model's `generation`, without some of them."
        raise InputError(Problem(unsupported[0], UNSUPPORTED[unsupported[0]].why, "a supported setting", remedy))
    check(settings, given, model)
    return settings


def check(settings: GenerationSpec, given: Mapping[str, Any], model: ModelParts) -> None:
    """Raise `InputError` for settings that do not fit the model or each other.

    given: those that were given by name.
    """
    vocabulary = model.spec.vocabulary_of("decoder")
    for name, token in tokens_in(settings):
        integer(name, token, 0, vocabulary - 1)
    if not settings.do_sample:
        if unused := [name for name in OF_SAMPLING if name in given]:
            raise InputError(Problem(unused[0], f"{described(given[unused[0]])} without do_sample", "do_sample=True with it"))
    else:
        expected = f"a finite number, {COLDEST:g} or more"
        remedy = "do_sample=False takes the highest-scoring token."
        number("temperature", settings.temperature, COLDEST, math.inf, expected, remedy)
        number("top_p", settings.top_p, math.nextafter(0, 1), 1, "a probability above 0 and at most 1")
    if settings.num_beams > 1 or not settings.do_sample:
        integer("num_beams", settings.num_beams, 1, vocabulary)
        integer("num_return_sequences", settings.num_return_sequences, 1, settings.num_beams)


def check_length_penalty(settings: GenerationSpec, most: int) -> None:
    """Raise `InputError` for a length penalty whose powers exceed float32's range. most: the largest number of new tokens."""
    largest = POWER / max(1, math.log10(most))
    expected = f"a number from {-largest:.3g} to {largest:.3g}, for {most} tokens"
    number("length_penalty", settings.length_penalty, -largest, largest, expected)


def tokens_in(settings: GenerationSpec) -> Iterator[tuple[str, int]]:
    """Every token ID in the settings, with the name of its setting."""
    for name in settings.model_fields_set.intersection((*TOKENS, "suppress_tokens", "begin_suppress_tokens")):
        yield from ((name, token) for token in as_tuple(getattr(settings, name)) if token is not None)
    for word in settings.bad_words_ids or ():
        yield from (("bad_words_ids", token) for token in word)
    for word, _ in settings.sequence_bias or ():
        yield from (("sequence_bias", token) for token in word)


@dataclass(frozen=True)
class CallTokens:
    """The special tokens of a call: those of its settings, else those of the model's spec.

    ends:        end-of-sequence tokens.
    filler:      fills a row after its end.
    first:       the start token of a decoder with an encoder; None: there is none.
    forced_bos:  the first token to generate after a prompt of one token, if any.
    forced_ends: the tokens of which one is the last at the largest length.
    """

    ends: tuple[int, ...]
    filler: int
    first: int | None
    forced_bos: int | None
    forced_ends: tuple[int, ...]

    @staticmethod
    def of(settings: GenerationSpec, tokens: TokenSpec) -> "CallTokens":
        ends = tokens.ends if settings.eos_token_id is None else as_tuple(settings.eos_token_id)
        pad = tokens.pad if settings.pad_token_id is None else settings.pad_token_id
        starts = (settings.decoder_start_token_id, tokens.start, settings.bos_token_id, tokens.bos)
        bos, last = settings.forced_bos_token_id, settings.forced_eos_token_id
        return CallTokens(
            ends,
            # without end tokens no row ends early, and the filler is never visible
            pad if pad is not None else (ends[0] if ends else 0),
            next((token for token in starts if token is not None), None),
            tokens.forced_bos if bos is None else bos,
            tokens.forced_ends if last is None else as_tuple(last),
        )


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def new_tokens(settings: GenerationSpec, prompt: int) -> int:
    """The largest number of new tokens after a prompt of this length."""
    if settings.max_new_tokens is not None:
        return settings.max_new_tokens
    if settings.max_length is None:
        return DEFAULT_NEW_TOKENS
    return integer("max_length", settings.max_length, prompt + 1, prompt + LONGEST) - prompt


def random_generator(seed: int | None, do_sample: bool, device: torch.device) -> torch.Generator | None:
    """The generator of a call with a seed; None uses torch's random state."""
    if seed is None:
        return None
    if not do_sample:
        raise InputError(Problem("seed", f"{described(seed)} without do_sample", "do_sample=True with it"))
    return torch.Generator(device).manual_seed(integer("seed", seed, *SEEDS))


def check_arguments(settings: GenerationSpec, arguments: GenerateArguments, model: ModelParts) -> None:
    """Raise `InputError` for arguments besides the settings of the wrong type, or that exclude each other."""
    for name in ("use_cache", "compile"):
        flag(name, arguments.get(name, False))
    streamer, cache = arguments.get("streamer"), arguments.get("cache")
    if streamer is not None and not callable(streamer):
        expected = "a function that is called with each step's tokens, `[batch]`"
        raise InputError(Problem("streamer", described(streamer), expected, "For a streamer of transformers pass its `.put`."))
    if settings.num_beams > 1 and streamer is not None:
        raise InputError(Problem("streamer", f"streamer with num_beams={settings.num_beams}", "one or the other"))
    if cache is not None and arguments.get("use_cache") is False:
        raise InputError(Problem("cache", "a cache with use_cache=False", "one or the other"))
    if cache is not None and not cacheable(model):
        found = "a decoder whose tokens attend to later ones, so that every step recomputes all of them"
        raise InputError(Problem("cache", found, "no cache, or a causal mask"))
