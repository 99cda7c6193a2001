"""Generation: the source, the prompt and the settings of a call, then a search."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pairform.assemblies.generation.beam_search import beam_search
from pairform.assemblies.generation.compiled_step import in_bucket
from pairform.assemblies.generation.decoding import Decoding, cacheable
from pairform.assemblies.generation.lookup import Lookup, LookupDecoding, check_lookup
from pairform.assemblies.generation.options import CallTokens, check_arguments, new_tokens, random_generator, settings_of
from pairform.assemblies.generation.processors import Sequences, processors
from pairform.assemblies.generation.search import Search, sample
from pairform.assemblies.generation.stopping import stopping
from pairform.assemblies.modeling.checks.caches import check_same_beginning
from pairform.assemblies.modeling.generate_arguments import GenerateArguments
from pairform.assemblies.modeling.inputs import StackInputs, as_mask, mask_padding, real_tokens
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.outputs import EncoderOutputs, GenerationOutput, kept_mask, kept_output
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.functional.packing import packing
from pairform.registry import InputError, Problem

FEWEST = 16
"""The number of new tokens from which it pays to copy weights into a faster layout."""


@torch.no_grad()
def generate(
    model: Model, inputs: StackInputs, arguments: GenerateArguments, as_output: bool | None
) -> Tensor | GenerationOutput:
    """`Model.generate`, which documents the arguments. `inputs` are the encoder's, or the prompt of a decoder-only model.

    as_output: `return_dict_in_generate`.
    """
    settings = settings_of(model, arguments, as_output)
    check_arguments(settings, arguments, model)
    tokens = CallTokens.of(settings, model.spec.tokens)
    device = next(model.parameters()).device
    generator = random_generator(arguments.get("seed"), settings.do_sample, device)
    cache, compiled = arguments.get("cache"), arguments.get("compile") or False
    # a pad token that also ends sequences may be an ordinary part of the input, so it is not masked by default; the padding of
    # an encoder with special tokens of its own has nothing to do with the decoder's end tokens
    own_tokens = model.encoder is not None and model.encoder.spec.tokens is not None
    padding = model.padding if model.encoder is not None or settings.pad_token_id is None else settings.pad_token_id
    padding = None if padding in tokens.ends and not own_tokens else padding
    with evaluating(model):
        # the source, and the tokens that the decoder begins with
        source, images = None, inputs.pixel_values
        prompt, mask = inputs.ids, inputs.valid
        if model.encoder is not None:
            source = encode(model, inputs, arguments.get("encoder_outputs"), cache, padding)
            prompt, mask, images = arguments.get("decoder_input_ids"), arguments.get("decoder_attention_mask"), None
        prompt, valid = starting_point(prompt, mask, source, padding, tokens.first)
        most = new_tokens(settings, prompt.shape[1])
        longest = prompt.shape[1] + most
        warn_if_long(model, longest)
        aligned, valid = padded_left(prompt, valid)
        if cache is not None:
            check_same_beginning(model, cache, aligned, valid)
        elif arguments.get("use_cache", True) and cacheable(model):
            cache = Cache()
        if compiled and source is not None:  # sources of other lengths in the bucket share the compiled step
            source = in_bucket(source)
        # with all padding on the left, its length is the place of the first real token
        first = None if valid is None else (~valid).sum(1, keepdim=True)
        sequences = Sequences(prompt.shape[1], most, first, inputs.ids, device)
        search = Search(
            settings,
            processors(settings, tokens, sequences, arguments),
            stopping(settings, tokens.ends, arguments, device),
            tokens,
            most,
            generator,
            arguments.get("streamer"),
        )
        if model.agree is not None:  # every process must run the decoder as often
            model.agree("max_new_tokens, num_beams, end tokens", (most, settings.num_beams, int(search.stopping.any)))
        if settings.prompt_lookup_num_tokens is None:
            decoding = Decoding(model, source, cache, first, length=longest, compile=compiled)
        else:
            cache = check_lookup(settings, model, cache, len(prompt))
            lookup = Lookup.of(settings, None if model.encoder is None else inputs.ids)
            decoding = LookupDecoding(model, source, cache, first, lookup, length=longest, compile=compiled)
        # the loop over new tokens. Compiled steps have copies of no weights, nor have weights that processes share
        with packing(most >= FEWEST and not compiled and model.all_finished is None):
            if settings.num_beams == 1:
                made = sample(decoding, aligned, images, search)
            else:
                made = beam_search(decoding, aligned, images, search)
        if cache is not None and decoding.cache is not cache:
            cache.tokens = aligned
        # the prompt as it was given, with padding where it was
        prompt = prompt.repeat_interleave(settings.num_return_sequences, 0)
        made.sequences = torch.cat((prompt, made.sequences), dim=1)
        return made if settings.return_dict_in_generate else made.sequences


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Eval mode for all modules; afterwards each one's previous mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def padded_left(
    prompt: Int[Tensor, "batch prompt"], valid: Bool[Tensor, "batch prompt"] | None
) -> tuple[Int[Tensor, "batch prompt"], Bool[Tensor, "batch prompt"] | None]:
    """The prompt with its padding moved to the left, so that all rows grow on the right."""
    if valid is None:
        return prompt, None
    # padding, False, sorts first; the stable sort keeps the tokens in order
    order = valid.long().argsort(dim=1, stable=True)
    return prompt.gather(1, order), valid.gather(1, order)


def encode(model: Model, inputs: StackInputs, outputs: EncoderOutputs, cache: Cache | None, padding: int | None) -> Source:
    """The source of the decoder: the encoder's output, computed unless it is given, after the bridge."""
    assert model.encoder is not None
    inputs = mask_padding(replace(inputs, valid=kept_mask(outputs, inputs.valid)), padding)
    if outputs is not None:
        encoded = kept_output(outputs, model.source_layers)
    else:
        encoded = model.encoder(inputs, layers=model.source_layers)
    return model.decoder_source(encoded, inputs, cache)


def starting_point(
    prompt: Tensor | None, mask: Tensor | None, source: Source | None, padding: int | None, first: int | None
) -> tuple[Tensor, Tensor | None]:
    """The prompt of the decoder and its mask, False at padding (None: there is no padding).

    first: the start token, if there is one.

    Raises:
        InputError: there is neither a prompt nor a start token.
    """
    if prompt is None:
        if source is None or first is None:
            raise InputError(
                Problem("input_ids", "no tokens to start from", "input_ids, or a bos (or start) token in the spec")
            )
        return torch.full((len(source.hidden), 1), first, device=source.hidden.device), None
    valid = as_mask(mask)
    if valid is None and source is None:
        valid = real_tokens(prompt, padding)
    return prompt, None if valid is None or bool(valid.all()) else valid


def warn_if_long(model: Model, length: int) -> None:
    """Warn if the sequence may become longer than the decoder's `max_length`."""
    longest = None if model.spec.decoder is None else model.spec.decoder.max_length
    if longest is not None and length > longest:
        warnings.warn(f"{length} tokens are more than the decoder's max_length of {longest}", stacklevel=6)
