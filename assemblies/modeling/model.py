"""The model: its forward pass and its generation."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.checks.arguments import checked
from pairform.assemblies.modeling.checks.caches import check_same_source
from pairform.assemblies.modeling.checks.calls import check_forward, check_generate
from pairform.assemblies.modeling.inputs import StackInputs, as_mask, decoder_inputs, mask_padding
from pairform.assemblies.modeling.outputs import EncoderOutputs, ModelOutput, kept_mask, kept_output
from pairform.assemblies.modeling.segments import begins, check_prefix, check_segments
from pairform.assemblies.modeling.stack import StackOutput
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.heads.labels import IGNORED
from pairform.blocks.heads.prediction import Prediction


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
        pixel_values: Float[Tensor, "pictures channels height width"] | None = None,
        encoder_outputs: EncoderOutputs = None,
        cache: Cache | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        output_logits: bool = False,
    ) -> ModelOutput:
        """Logits; with `labels` the loss.

        attention_mask:  1 at tokens, 0 at padding, in integers or booleans, over cached tokens and new ones. Without it, tokens
                         equal to `tokens.pad` (of the encoder) are padding to the encoder and to cross-attention, unless that
                         token also ends text; a decoder masks only what its own mask says, since a decoder may begin with or
                         write the pad token.
        labels:          `-100` is ignored; without any other label the loss is nan, as in torch. Encoder-decoders take them in
                         place, and without `decoder_input_ids` read them shifted right; decoder-only models predict the next
                         token.
        segment_ids:     numbers of the documents packed in a row, the same in both stacks: tokens of each stand together, count
                         their positions from its beginning, and see and predict no other's. Over cached tokens and new ones.
        prefix_lengths:  where the decoder's masks have a prefix: how many of each row's tokens, from the first real one on, see
                         each other. Absent, none do. With a cache, of the first call: later tokens are no part of it.
        pixel_values:    of the pictures in `input_ids`, in their order over the whole batch.
        encoder_outputs: from an earlier call, to run the decoder alone: the whole output, which remembers the padding; or the
                         hidden states, or a tuple that begins with them, beside `attention_mask`.
        cache:           an empty `Cache()` to start with; it grows with each call.
        output_logits:   compute logits in this pass beside `labels` too. Otherwise they are computed there when they are first
                         read: a language model's loss needs none, and takes a fraction of their memory.

        Arguments that do not fit the model or each other are an `InputError`.
        """
        check_segments(self.spec, segment_ids, decoder_segment_ids)
        if prefix_lengths is not None:
            check_prefix(self.spec, prefix_lengths, cache, segment_ids)
        wanted = {"hidden_states": output_hidden_states, "attentions": output_attentions}
        valid = kept_mask(encoder_outputs, as_mask(attention_mask))
        read = StackInputs(input_ids, inputs_embeds, valid, position_ids, pixel_values, segment_ids)
        if self.encoder is None:
            assert self.decoder is not None, "checked by the spec"
            ran = self.decoder(replace(read, prefix_lengths=prefix_lengths), cache=cache, **wanted)
            predicted = self.predict(ran, read, labels, output_logits, shift=True)
            return ModelOutput(*predicted, ran.hidden, ran.hidden_states, ran.attentions_over("own"), cache=cache)

        read = mask_padding(read, self.padding)
        encoded: StackOutput | None = None
        if encoder_outputs is None:
            encoded = self.encoder(read, layers=self.source_layers, **wanted)
        if self.decoder is None:
            assert encoded is not None, "checked at the door"
            predicted = self.predict(encoded, read, labels, output_logits)
            states = (encoded.hidden, encoded.hidden_states, encoded.attentions_over("own"))
            return ModelOutput(*predicted, *states, encoder_attention_mask=read.valid)

        written = StackInputs(
            decoder_input_ids,
            decoder_inputs_embeds,
            as_mask(decoder_attention_mask),
            decoder_position_ids,
            segments=decoder_segment_ids,
            prefix_lengths=prefix_lengths,
        )
        written = decoder_inputs(self.spec, written, read, labels, self.padding)
        output = encoded if encoded is not None else kept_output(encoder_outputs, self.source_layers)
        source = self.decoder_source(output, read, cache)
        ran = self.decoder(written, source=source, cache=cache, **wanted)
        predicted = self.predict(ran, written, labels, output_logits, encoded)
        return ModelOutput(
            *predicted,
            last_hidden_state=ran.hidden,
            encoder_last_hidden_state=output.hidden,
            encoder_attention_mask=read.valid,
            encoder_layers=output.layers or None,
            encoder_hidden_states=None if encoded is None else encoded.hidden_states,
            encoder_attentions=None if encoded is None else encoded.attentions_over("own"),
            decoder_hidden_states=ran.hidden_states,
            decoder_attentions=ran.attentions_over("own"),
            cross_attentions=ran.attentions_over("source"),
            cache=cache,
        )

    @checked(check_generate)
    def generate(
        self,
        input_ids: Int[Tensor, "batch length"] | None = None,
        attention_mask: Tensor | None = None,
        *,
        max_new_tokens: int,
        do_sample: bool = False,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        decoder_input_ids: Int[Tensor, "batch prompt"] | None = None,
        decoder_attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        encoder_outputs: EncoderOutputs = None,
        use_cache: bool = True,
        cache: Cache | None = None,
        streamer: Callable[[Tensor], object] | None = None,
        compile: bool = False,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
        num_return_sequences: int = 1,
    ) -> Int[Tensor, "batch written"]:
        """The decoder's tokens: its prompt (the start token by default), then at most `max_new_tokens` more.

        A decoder-only model's prompt is `input_ids`. Rows end at any of `eos_token_id` (default: the spec's) and are then
        filled with pad; all stop when every row has ended. Prompts may be padded left or right. `cache` may hold the
        beginning of the prompt from an earlier call; it holds all but the last token afterwards. The same `seed` draws
        the same tokens. A decoder whose tokens see later ones keeps nothing, whatever `use_cache` says. `compile` compiles the
        step of one token when it is first needed, and again only for buckets of lengths and batches that this model
        has not met; it pays where much is written.

        With `num_beams`, beam search as in transformers: see `BeamSearch` for its options. It gives
        `batch * num_return_sequences` rows, those of one input together, best first; a `cache` then holds the prompt alone.
        """
        from pairform.assemblies.generation.generate import generate
        from pairform.assemblies.generation.options import GenerationOptions

        options = GenerationOptions(
            max_new_tokens,
            do_sample,
            temperature,
            top_k,
            top_p,
            seed,
            eos_token_id,
            use_cache,
            streamer,
            compile,
            num_beams,
            length_penalty,
            early_stopping,
            num_return_sequences,
        )
        inputs = (input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, pixel_values, encoder_outputs)
        return generate(self, options, *inputs, cache)

    def decoder_source(self, encoded: StackOutput, read: StackInputs, cache: Cache | None) -> Source:
        """What the decoder reads of the encoder: nothing is projected again where the cache holds its keys and values."""
        if cache is not None and not torch.compiler.is_compiling():
            check_same_source(self, cache, encoded.hidden)
        if cache is not None and cache.source:
            return Source(encoded.hidden, read.valid, read.segments)
        return self.source(encoded.hidden, read.valid, read.segments, encoded.layers)

    def predict(
        self,
        last: StackOutput,
        inputs: StackInputs,
        labels: Tensor | None,
        output_logits: bool,
        encoded: StackOutput | None = None,
        *,
        shift: bool = False,
    ) -> tuple[Prediction, Tensor | None, Tensor | None]:
        """Logits, the loss and the auxiliary loss in it, from the output of the last stack, which read `inputs`.

        encoded: the output of the encoder before it. shift: each token predicts the next.
        """
        valid = mask_padding(inputs, self.spec.tokens.pad).valid  # classifiers read the last token that is not padding
        prediction = Prediction(self.head, self.lowered(last.hidden), valid, self.tied())
        stacks = (last,) if encoded is None else (encoded, last)
        auxiliary = [stack.auxiliary_loss for stack in stacks if stack.auxiliary_loss is not None]
        auxiliary_loss = torch.stack(auxiliary).sum() if auxiliary else None
        loss: Tensor | None = None
        if labels is not None:
            if shift and inputs.segments is not None:  # do not predict across document boundaries
                labels = labels.masked_fill(begins(inputs.segments[:, -labels.shape[1] :]), IGNORED)
            loss = self.head.loss(prediction, labels, shift)
            loss = loss if auxiliary_loss is None or loss is None else loss + auxiliary_loss
        if labels is None or output_logits:
            _ = prediction.logits
        prediction.keep_track()
        return prediction, loss, auxiliary_loss
