"""The model: forward pass, loss and generation."""

from dataclasses import replace
from typing import Literal, Unpack, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.arguments import checked
from pairform.assemblies.modeling.checks.caches import check_same_source
from pairform.assemblies.modeling.checks.calls import check_forward, check_generate
from pairform.assemblies.modeling.generate_arguments import GenerateArguments
from pairform.assemblies.modeling.inputs import StackInputs, as_mask, check_packing, decoder_inputs, mask_padding
from pairform.assemblies.modeling.outputs import EncoderOutputs, GenerationOutput, ModelOutput, kept_mask, kept_output
from pairform.assemblies.modeling.prediction_and_loss import LossArguments, predict
from pairform.assemblies.modeling.stack import StackOutput
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.heads.loss_terms import LossTerms


class Model(ModelParts):
    """An encoder-decoder, encoder-only or decoder-only model. `forward` takes transformers' argument names."""

    @checked(check_forward)
    def forward(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Int[Tensor, "batch target_length"] | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        inputs_embeds: Float[Tensor, "batch length width"] | None = None,
        decoder_inputs_embeds: Float[Tensor, "batch target_length width"] | None = None,
        position_ids: Int[Tensor, "batch length"] | None = None,
        decoder_position_ids: Int[Tensor, "batch target_length"] | None = None,
        segment_ids: Int[Tensor, "batch length"] | None = None,
        decoder_segment_ids: Int[Tensor, "batch target_length"] | None = None,
        prefix_lengths: Int[Tensor, " batch"] | None = None,
        token_type_ids: Int[Tensor, "batch length"] | None = None,
        pixel_values: Float[Tensor, "pictures channels height width"] | None = None,
        encoder_outputs: EncoderOutputs = None,
        cache: Cache | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        output_logits: bool | None = None,
        loss_tokens: int | Tensor | None = None,
        loss_terms: LossTerms | None = None,
    ) -> ModelOutput:
        """The logits, and with `labels` the loss.

        Args:
            input_ids: token IDs of the encoder, or of the only stack, in int64 or int32.
            attention_mask: 1 at tokens and 0 at padding, in integers or booleans, over cached and new tokens,
                `[batch, length]`. By default, tokens equal to `tokens.pad` (of the encoder) are padding for the encoder and for
                cross-attention, unless that token is also an end-of-sequence token. A decoder without a mask of its own masks
                nothing, since its input may begin with or contain the pad token.
            decoder_input_ids: token IDs of the decoder, with a cache only the new ones.
            decoder_attention_mask: as `attention_mask`, for the decoder.
            labels: `[batch, length]` for a language model; other heads describe theirs. -100 is ignored; if all are ignored the
                loss is nan, as in torch. In an encoder-decoder, label i belongs to position i of the decoder, which by default
                reads the labels shifted right. In a decoder-only model, each token predicts the label of the next.
            inputs_embeds, decoder_inputs_embeds: embeddings instead of token IDs.
            position_ids, decoder_position_ids: positions of the new tokens. By default counted from the first token that is
                not padding.
            segment_ids, decoder_segment_ids: numbers of the documents packed in a row, the same in both stacks, over cached
                and new tokens. Tokens of one document are contiguous, attend to and predict only each other, and have
                positions counted from its beginning.
            prefix_lengths: for a decoder whose masks have a prefix, the number of tokens of each row, from the first that is
                not padding, that attend to each other; by default 0. With a cache they belong to the first call.
            token_type_ids: the type of each new token of an encoder, or of the only stack, that has token types; by default 0.
                The decoder of an encoder-decoder reads type 0.
            pixel_values: the images of the image tokens in `input_ids`, in their order over the whole batch.
            encoder_outputs: from an earlier call, to run only the decoder: the whole output, which includes the padding mask;
                or the hidden states, or a tuple that begins with them, together with `attention_mask`.
            cache: an empty `Cache()` for the first call; each call appends to it.
            output_hidden_states: also return the hidden states of all layers.
            output_attentions: also return the attention weights of all layers, with a kernel that computes them.
            output_logits: whether to compute the logits in this pass, or when they are first read. By default in this pass,
                but with `labels` when first read: the loss of a language model does not need them, and takes a fraction of
                their memory.
            loss_tokens: with `labels`, the number that the sum of the losses of all labels is divided by, instead of the number
                of labels in this call that are not ignored. With the number of the whole batch, the gradients of its parts (of
                gradient accumulation, or of several processes) add up to its gradient. Auxiliary losses do not change.
            loss_terms: with `labels` of a language model, z-loss and distillation from a teacher. The output has `loss_parts`.

        Raises:
            InputError: arguments that do not fit the model or each other.
        """
        self.share_embedding()
        check_packing(self.spec, segment_ids, decoder_segment_ids, prefix_lengths, cache)
        asked = LossArguments(labels, output_logits, loss_tokens, loss_terms)
        requested = {"hidden_states": output_hidden_states, "attentions": output_attentions}
        valid = kept_mask(encoder_outputs, as_mask(attention_mask))
        source_inputs = StackInputs(
            input_ids, inputs_embeds, valid, position_ids, pixel_values, segment_ids, token_types=token_type_ids
        )
        if self.encoder is None:  # decoder-only
            assert self.decoder is not None, "checked by the spec"
            decoded = self.decoder(replace(source_inputs, prefix_lengths=prefix_lengths), cache=cache, **requested)
            predicted = predict(self, decoded, source_inputs, asked, shift=True)
            return ModelOutput(*predicted, decoded.hidden, decoded.hidden_states, decoded.attentions.get("own"), cache=cache)

        source_inputs = mask_padding(source_inputs, self.padding)
        encoded: StackOutput | None = None
        if encoder_outputs is None:
            encoded = self.encoder(source_inputs, layers=self.source_layers, **requested)
        if self.decoder is None:  # encoder-only
            assert encoded is not None, "checked on entry"
            predicted = predict(self, encoded, source_inputs, asked)
            states = (encoded.hidden, encoded.hidden_states, encoded.attentions.get("own"))
            return ModelOutput(*predicted, *states, encoder_attention_mask=source_inputs.valid)

        target_inputs = StackInputs(
            decoder_input_ids,
            decoder_inputs_embeds,
            as_mask(decoder_attention_mask),
            decoder_position_ids,
            segments=decoder_segment_ids,
            prefix_lengths=prefix_lengths,
        )
        target_inputs = decoder_inputs(self.spec, target_inputs, source_inputs, labels, self.padding)
        # the encoder's output, of this call or an earlier one
        output = kept_output(encoder_outputs, self.source_layers) if encoded is None else encoded
        source = self.decoder_source(output, source_inputs, cache)
        decoded = self.decoder(target_inputs, source=source, cache=cache, **requested)
        predicted = predict(self, decoded, target_inputs, asked, encoded)
        return ModelOutput(
            *predicted,
            last_hidden_state=decoded.hidden,
            encoder_last_hidden_state=output.hidden,
            encoder_attention_mask=source_inputs.valid,
            encoder_layers=output.layers or None,
            encoder_hidden_states=None if encoded is None else encoded.hidden_states,
            encoder_attentions=None if encoded is None else encoded.attentions.get("own"),
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions.get("own"),
            cross_attentions=decoded.attentions.get("source"),
            cache=cache,
        )

    @overload
    def generate(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        attention_mask: Tensor | None = None,
        *,
        return_dict_in_generate: Literal[True],
        **arguments: Unpack[GenerateArguments],
    ) -> GenerationOutput: ...

    @overload
    def generate(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        attention_mask: Tensor | None = None,
        *,
        return_dict_in_generate: Literal[False] | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> Tensor: ...

    @checked(check_generate)
    def generate(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        attention_mask: Tensor | None = None,
        *,
        return_dict_in_generate: bool | None = None,
        **arguments: Unpack[GenerateArguments],
    ) -> Tensor | GenerationOutput:
        """Generate tokens. Returns the decoder's prompt, followed by the generated tokens, `[batch, length]`.

        The settings of generation are the fields of `GenerationSpec`. One that is given by name takes precedence over one in
        `generation_config`, that over one in `generation` of the model (its folder's settings), and that over the default of
        transformers; None is a setting that is not given.

        Args:
            input_ids: the encoder's input; the prompt of a decoder-only model. Prompts may be padded on either side.
            attention_mask: 1 at tokens and 0 at padding, as in `forward`.
            return_dict_in_generate: return a `GenerationOutput`, which has the scores too.
            generation_config: a `GenerationSpec`, a dict, or a `GenerationConfig` of transformers.
            seed: makes sampling reproducible; None uses torch's random state.
            decoder_input_ids: the prompt of a decoder with an encoder; by default the start token.
            decoder_attention_mask: the mask of `decoder_input_ids`.
            token_type_ids: as in `forward`, for an encoder.
            pixel_values, encoder_outputs: as in `forward`.
            use_cache: keep keys and values from step to step. A decoder whose tokens attend to later ones never does.
            cache: keys and values of the beginning of the prompt, from an earlier call. Afterwards it holds all tokens but the
                last; after beam search, or with several sequences per row, only the prompt.
            streamer: called with the new token of every row, `[batch]`, after each step.
            compile: compile the decoding step at its first use, and again only for buckets of lengths and for batch sizes that
                are new to this model. It pays for long outputs.
            tokenizer: decodes tokens for `stop_strings`.
            logits_processor: one or several functions from tokens so far and scores of the next to other scores, such as those
                of transformers. They run after the settings' own and before those of sampling.
            stopping_criteria: one or several functions from tokens so far and scores to whether rows end.
            prefix_allowed_tokens_fn: from the number of the row in the batch and its tokens so far to the tokens that may
                follow.

        Raises:
            InputError: arguments that do not fit the model or each other, or NaN or infinite logits.
        """
        from pairform.assemblies.generation.generate import generate

        self.share_embedding()
        source = StackInputs(
            input_ids,
            valid=as_mask(attention_mask),
            pixel_values=arguments.get("pixel_values"),
            token_types=arguments.get("token_type_ids"),
        )
        return generate(self, source, arguments, return_dict_in_generate)

    def decoder_source(self, encoded: StackOutput, inputs: StackInputs, cache: Cache | None) -> Source:
        """The source of the decoder. The bridge is skipped if the cache already holds the source's keys and values."""
        if cache is not None and not torch.compiler.is_compiling():
            check_same_source(self, cache, encoded.hidden)
        if cache is not None and cache.source:
            return Source(encoded.hidden, inputs.valid, inputs.segments)
        return self.source(encoded.hidden, inputs.valid, inputs.segments, encoded.layers)
