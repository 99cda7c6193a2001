"""The model: one or two stacks and a head, put together from a `ModelSpec`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pairform.assemblies.modeling.activation_checkpointing import Layers, checkpoint_layers
from pairform.assemblies.modeling.checks.arguments import checked
from pairform.assemblies.modeling.checks.caches import check_same_source
from pairform.assemblies.modeling.checks.calls import check_forward, check_generate
from pairform.assemblies.modeling.compile import compile_layers
from pairform.assemblies.modeling.frozen_weights import check_apply, constant_weights
from pairform.assemblies.modeling.inputs import StackInputs, as_mask, decoder_inputs, mask_padding, shift_right
from pairform.assemblies.modeling.outputs import EncoderOutputs, ModelOutput, kept_mask, kept_output, own_states
from pairform.assemblies.modeling.segments import begins, check_prefix, check_segments
from pairform.assemblies.modeling.stack import Stack, StackOutput
from pairform.assemblies.specs.model import ModelSpec
from pairform.blocks.attention.cross_attention import CrossAttention
from pairform.blocks.attention.kernels.dispatch import choose
from pairform.blocks.attention.projections import AttentionHeads
from pairform.blocks.cache import Cache
from pairform.blocks.context import Source
from pairform.blocks.heads.linear_cross_entropy import IGNORED
from pairform.blocks.heads.prediction import Prediction
from pairform.registry import InputError, build_block


class Model(nn.Module):
    """An encoder-decoder, encoder-only or decoder-only model. `forward` takes transformers' argument names.

    padding:       the token that is padding in what the model reads, where a call gives no mask; None if no token is.
    source_layers: numbers of the encoder's layers that some block of the decoder reads beside the output.
    check_inputs:  check the values of inputs (ids, masks, positions) on every device, to debug. By default they are checked on
                   a CPU alone, since elsewhere that needs a synchronisation. Types and shapes are always checked. Compiled
                   code checks nothing.
    """

    check_inputs: bool = False

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = None if spec.encoder is None else Stack(spec.encoder, spec.sizes("encoder"))
        self.decoder = None if spec.decoder is None else Stack(spec.decoder, spec.sizes("decoder"))
        if spec.tie_embeddings:
            assert self.encoder is not None, "checked by the spec"
            assert self.decoder is not None, "checked by the spec"
            self.decoder.embedding = self.encoder.embedding
        read = {module.source_layer for module in self.modules() if isinstance(module, CrossAttention)}
        self.source_layers = tuple(sorted(layer for layer in read if layer is not None))
        self.bridge = build_block(spec.bridge, spec.bridge_sizes, "bridge")
        self.head = build_block(spec.head, spec.head_sizes, "head")
        self.padding = spec.tokens_of(next(iter(spec.stacks))).padding
        self.tie: str | None = getattr(spec.head, "tie", None)  # not asked of the spec later: torch cannot compile that

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
        output_logits: bool | None = None,
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
        output_logits:   whether logits are computed. By default they are, but not beside `labels` where the loss needs none: a
                         language model's loss takes a fraction of their memory.

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
            return ModelOutput(**predicted, **own_states(ran), cache=cache)

        read = mask_padding(read, self.padding)
        encoded: StackOutput | None = None
        if encoder_outputs is None:
            encoded = self.encoder(read, layers=self.source_layers, **wanted)
        if self.decoder is None:
            assert encoded is not None, "checked at the door"
            predicted = self.predict(encoded, read, labels, output_logits)
            return ModelOutput(**predicted, **own_states(encoded), encoder_attention_mask=read.valid)

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
            **predicted,
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

        return generate(
            self,
            input_ids,
            attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            eos_token_id=eos_token_id,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            pixel_values=pixel_values,
            encoder_outputs=encoder_outputs,
            use_cache=use_cache,
            cache=cache,
            streamer=streamer,
            compile=compile,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            num_return_sequences=num_return_sequences,
        )

    def decoder_source(self, encoded: StackOutput, read: StackInputs, cache: Cache | None) -> Source:
        """What the decoder reads of the encoder: nothing is projected again where the cache holds its keys and values."""
        if cache is not None and not torch.compiler.is_compiling():
            check_same_source(self, cache, encoded.hidden)
        if cache is not None and cache.source:
            return Source(encoded.hidden, read.valid, read.segments)
        return self.source(encoded.hidden, read.valid, read.segments, encoded.layers)

    def source(
        self,
        hidden: Float[Tensor, "batch length width"],
        valid: Tensor | None,
        segments: Tensor | None = None,
        layers: Mapping[int, Tensor] | None = None,
    ) -> Source:
        """The encoder's output, and that of single layers, as the decoder reads them: over the bridge."""
        return Source(hidden, valid, segments, layers or {}).each(self.bridge)

    def predict(
        self,
        last: StackOutput,
        inputs: StackInputs,
        labels: Tensor | None,
        output_logits: bool | None,
        encoded: StackOutput | None = None,
        *,
        shift: bool = False,
    ) -> dict[str, Tensor | None]:
        """Logits and losses from the output of the last stack, which read `inputs`; `encoded` is the encoder's in front of it.
        With `shift`, each token predicts the next."""
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
        if output_logits or (output_logits is None and labels is None):
            _ = prediction.logits
        return {"computed_logits": prediction.computed, "loss": loss, "auxiliary_loss": auxiliary_loss}

    def tied(self) -> Tensor | None:
        """The embedding table that the head shares, if it shares one."""
        return None if self.tie is None else self.get_parameter(f"{self.tie}.embedding.weight")

    def lowered(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... table_width"]:
        """The last hidden states as the head reads them: as wide as the table that it shares, if it shares one."""
        lower = None if self.tie is None else getattr(self.get_submodule(f"{self.tie}.embedding"), "lower", None)
        return hidden if lower is None else lower(hidden)

    def train(self, mode: bool = True) -> Self:
        """Switch to training, where dropout is at work; quantised or prepacked weights, which get no gradient, are an error."""
        if mode and (problem := constant_weights(self, "train", why=", which get no gradient")) is not None:
            raise InputError(problem)
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert or move every tensor, or none."""
        check_apply(self, fn)
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def checkpoint_layers(self, layers: Layers | Mapping[str, Layers] = "all") -> None:
        """In training, keep only the input of these layers and compute the rest again in the backward pass, bit for bit.

        "all", "none", 2 for every second layer from the first on, numbers such as `[0, 3, -1]`, or any of these by stack:
        `{"decoder": "all"}`, where stacks that are not named have none. It is a setting of this object, and not saved.
        """
        checkpoint_layers(self, layers)

    def compile_layers(self, **options: Any) -> None:
        """Compile each layer by itself, in place, when it first runs; layers of one kind share their code, for any lengths.

        It takes a compiler a fraction of the time that the whole model takes. `options` are those of `torch.compile`.
        """
        compile_layers(self, **options)

    def use_kernel(self, kernel: str) -> None:
        """Let every attention block use `kernel`. One that cannot do some block's work is an error that lists those that can,
        and changes none."""
        blocks = {name: module for name, module in self.named_modules() if isinstance(module, AttentionHeads)}
        for name, block in blocks.items():
            try:
                choose(kernel, block.demand)
            except InputError as error:
                raise InputError([problem.inside(name) for problem in error.problems]) from None
        for block in blocks.values():
            block.kernel = kernel

    def shift_right(self, ids: Int[Tensor, "batch length"], segments: Tensor | None = None) -> Int[Tensor, "batch length"]:
        """`ids` one place later, behind the start token of each row or segment; ignored labels become padding."""
        return shift_right(ids, self.spec.tokens, segments)
