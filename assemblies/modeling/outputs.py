"""What a model gives, and what can be read out of an output that a caller kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from pairform.assemblies.modeling.stack import StackOutput
from pairform.blocks.cache import Cache
from pairform.blocks.heads.prediction import Prediction
from pairform.registry import InputError, Problem


@dataclass
class ModelOutput:
    """The result of a forward pass; a part that the model lacks or that was not asked for is None.

    A decoder-only or encoder-only model fills `last_hidden_state`, `hidden_states` and `attentions`; beside an encoder
    the decoder's are `decoder_hidden_states`, `decoder_attentions` and `cross_attentions`, as in transformers.

    Attributes:
        prediction: gives `logits`, which are None without a head. A language model's loss needs none, so beside `labels` they
            are computed when they are first read, and then kept, unless the call asks for them by `output_logits`. They are
            those of the forward pass: to read them first after the weights have changed is an `InputError`.
        loss: with `labels`; contains `auxiliary_loss`.
        encoder_attention_mask: True at the source's tokens, False at its padding; None: there is no padding. It is used where
            the output is passed as `encoder_outputs`.
        encoder_layers: what the decoder reads of single layers of the encoder, by number, where it does.
        auxiliary_loss: what blocks such as a mixture of experts add to the loss, in training.
    """

    prediction: Prediction | None = None
    loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_attention_mask: Tensor | None = None
    encoder_layers: Mapping[int, Tensor] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    cache: Cache | None = None

    @property
    def logits(self) -> Tensor | None:
        return None if self.prediction is None else self.prediction.logits


EncoderOutputs: TypeAlias = Tensor | ModelOutput | tuple[Any, ...] | None
"""What `encoder_outputs` may be."""


def encoder_hidden(outputs: Any) -> Any:
    """The encoder's last hidden states in what a caller passes: our output or transformers', a tuple that begins with them, or
    the tensor itself. None if there are none."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, tuple | list):
        return outputs[0] if outputs and isinstance(outputs[0], Tensor) else None
    hidden = getattr(outputs, "encoder_last_hidden_state", None)
    return getattr(outputs, "last_hidden_state", None) if hidden is None else hidden


def kept_mask(outputs: Any, valid: Tensor | None) -> Tensor | None:
    """`valid`, or in its absence the mask in an earlier call's output."""
    return outputs.encoder_attention_mask if valid is None and isinstance(outputs, ModelOutput) else valid


def kept_output(outputs: EncoderOutputs, layers: Sequence[int]) -> StackOutput:
    """What the decoder reads of an earlier call's output: the hidden states, and those of `layers` of the encoder."""
    kept = (outputs.encoder_layers if isinstance(outputs, ModelOutput) else None) or {}
    if any(layer not in kept for layer in layers):
        found = f"no hidden states of the encoder's layers {', '.join(map(str, layers))}"
        raise InputError(Problem("encoder_outputs", found, "the whole output of an earlier call, for this decoder reads them"))
    return StackOutput(encoder_hidden(outputs), layers=kept)
