"""The output of a model, and access to an earlier output that a caller passes in again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils import _pytree as pytree

from pairform.assemblies.modeling.stack import StackOutput
from pairform.blocks.cache import Cache
from pairform.blocks.heads.loss_terms import LossParts
from pairform.blocks.heads.prediction import Prediction
from pairform.registry import InputError, Problem


@dataclass(frozen=True)
class KnownLogits:
    """Logits that have been computed."""

    logits: Tensor


@dataclass
class ModelOutput:
    """The output of a forward pass. Parts that the model lacks or that were not requested are None.

    A decoder-only or encoder-only model fills `last_hidden_state`, `hidden_states` and `attentions`. In an encoder-decoder the
    decoder's are `decoder_hidden_states`, `decoder_attentions` and `cross_attentions`, as in transformers.

    It can also be read as outputs of transformers are: by name, `output["loss"]`, by place among the parts that are not None,
    `output[0]`, or as a mapping of names to these parts. It is a pytree.

    Attributes:
        prediction: computes `logits`, which are None without a head. The loss of a language model does not need them: with
            `labels` they are computed when first read, and then kept, unless the call requests them with `output_logits`. They
            are those of the forward pass: a first read after the weights have changed raises `InputError`.
        loss: with `labels`; includes `auxiliary_loss` and the other terms.
        encoder_attention_mask: False at padding of the source, `[batch, source_length]`; None: there is no padding. It is used
            if the output is passed as `encoder_outputs`.
        encoder_layers: outputs of the encoder layers that the decoder attends to, by layer number.
        auxiliary_loss: the loss that blocks such as a mixture of experts add in training.
        loss_parts: with `loss_terms`, the cross-entropy and the other terms, without gradients.
    """

    prediction: Prediction | KnownLogits | None = None
    loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    loss_parts: LossParts | None = None
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
        """The logits, `[batch, length, vocabulary]` of a language model; None without a head."""
        return None if self.prediction is None else self.prediction.logits

    def keys(self) -> tuple[str, ...]:
        """The names of the parts that are not None, the loss and the logits first."""
        present = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        named = ["logits" if name == "prediction" else name for name in present]
        return tuple(sorted(named, key=lambda name: {"loss": 0, "logits": 1}.get(name, 2)))

    def values(self) -> tuple[Any, ...]:
        """The parts that are not None, in the order of `keys`."""
        return tuple(getattr(self, name) for name in self.keys())

    def items(self) -> tuple[tuple[str, Any], ...]:
        """The names and the parts that are not None."""
        return tuple(zip(self.keys(), self.values(), strict=True))

    def get(self, name: str, default: Any = None) -> Any:
        """A part by name; `default` if it is None."""
        return getattr(self, name) if name in self.keys() else default

    def to_tuple(self) -> tuple[Any, ...]:
        """As `values`, under transformers' name."""
        return self.values()

    def __getitem__(self, key: str | int | slice) -> Any:
        names = self.keys()
        if isinstance(key, slice):
            return tuple(getattr(self, name) for name in names[key])
        if isinstance(key, str) and key not in names:
            raise KeyError(key)
        return getattr(self, key if isinstance(key, str) else names[key])

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __bool__(self) -> bool:
        return True


def flattened(output: ModelOutput) -> tuple[list[Any], list[str]]:
    """The parts and their names. Logits that have not been computed are not computed here: they stay a `Prediction`."""
    parts = {field.name: getattr(output, field.name) for field in fields(output)}
    if isinstance(parts["prediction"], Prediction) and parts["prediction"].made is not None:
        parts["prediction"] = parts["prediction"].made
    present = {name: part for name, part in parts.items() if part is not None}
    return [*present.values()], [*present]


def restored(parts: Any, names: Any) -> ModelOutput:
    given = dict(zip(names, parts, strict=True))
    if "prediction" in given and not isinstance(given["prediction"], Prediction):
        given["prediction"] = KnownLogits(given["prediction"])
    return ModelOutput(**given)


pytree.register_pytree_node(ModelOutput, flattened, restored, serialized_type_name="pairform.ModelOutput")


@dataclass
class GenerationOutput:
    """The output of `generate` with `return_dict_in_generate=True`, with the names of transformers.

    Attributes:
        sequences: the prompt and the generated tokens, `[rows, length]`.
        scores: with `output_scores`, the scores of each step after all processing, `[rows, vocabulary]`: of beam search the
            log-probabilities of every beam, `[batch * beams, vocabulary]`.
        logits: with `output_logits`, the model's logits of each step, in float32.
        sequences_scores: of beam search with `output_scores`, the score of each returned sequence.
        beam_indices: of beam search, the row of `scores` that each token of a returned sequence was chosen from, -1 after its
            end, `[rows, generated]`.
    """

    sequences: Tensor
    scores: tuple[Tensor, ...] | None = None
    logits: tuple[Tensor, ...] | None = None
    sequences_scores: Tensor | None = None
    beam_indices: Tensor | None = None


EncoderOutputs: TypeAlias = Tensor | ModelOutput | tuple[Any, ...] | None
"""What `encoder_outputs` may be."""


def encoder_hidden(outputs: Any) -> Any:
    """The encoder's last hidden states in `encoder_outputs`: an output of pairform or transformers, a tuple that begins with
    them, or the tensor itself. None if there are none."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, tuple | list):
        return outputs[0] if outputs and isinstance(outputs[0], Tensor) else None
    hidden = getattr(outputs, "encoder_last_hidden_state", None)
    return getattr(outputs, "last_hidden_state", None) if hidden is None else hidden


def kept_mask(outputs: Any, valid: Tensor | None) -> Tensor | None:
    """`valid`, or if it is None the mask in the output of an earlier call."""
    return outputs.encoder_attention_mask if valid is None and isinstance(outputs, ModelOutput) else valid


def kept_output(outputs: EncoderOutputs, layers: Sequence[int]) -> StackOutput:
    """The encoder's hidden states and the outputs of its `layers` from the output of an earlier call.

    Raises:
        InputError: the outputs of these layers are missing.
    """
    available = (outputs.encoder_layers if isinstance(outputs, ModelOutput) else None) or {}
    if any(layer not in available for layer in layers):
        found = f"no hidden states of the encoder's layers {', '.join(map(str, layers))}"
        raise InputError(
            Problem("encoder_outputs", found, "the whole output of an earlier call, since this decoder reads them")
        )
    return StackOutput(encoder_hidden(outputs), layers=available)
