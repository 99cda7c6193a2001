"""What a model gives, and what can be read out of an output that a caller kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pairform.blocks.cache import Cache
from pairform.blocks.prediction import Prediction
from pairform.registry import InputError, Problem


@dataclass
class ModelOutput:
    """What a forward pass gives; a part that the model lacks or that was not asked for is None.

    A decoder-only or encoder-only model fills `last_hidden_state`, `hidden_states` and `attentions`; beside an encoder
    the decoder's are `decoder_hidden_states`, `decoder_attentions` and `cross_attentions`, as in transformers.

    `logits` is None without a head. Beside a language model's loss, which needs no logits held, they are computed when they
    are first read, from the weights of that moment.

    `encoder_layers` are what the decoder reads of single layers of the encoder, by number, where it does.

    `auxiliary_loss`, which only training has, is what blocks such as a mixture of experts add; `loss` contains it.
    """

    prediction: Prediction | None = None
    loss: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_layers: Mapping[int, Tensor] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    cache: Cache | None = None
    auxiliary_loss: Tensor | None = None

    @property
    def logits(self) -> Tensor | None:
        return None if self.prediction is None else self.prediction.logits


def encoder_hidden(outputs: Tensor | ModelOutput | None) -> Tensor:
    """The encoder's last hidden states out of what a caller kept."""
    hidden = outputs.encoder_last_hidden_state if isinstance(outputs, ModelOutput) else outputs
    if hidden is None and isinstance(outputs, ModelOutput):
        hidden = outputs.last_hidden_state
    if hidden is None:
        raise InputError(Problem("encoder_outputs", "no hidden states", "an output of the encoder, or its hidden states"))
    return hidden
