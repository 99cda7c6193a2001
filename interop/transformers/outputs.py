"""Outputs of pairform's models as outputs of transformers."""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput as TransformersOutput

from pairform.assemblies.modeling.outputs import ModelOutput
from pairform.interop.transformers.cache import PairformCache


@dataclass
class PairformOutput(TransformersOutput):
    """The output of a model, by transformers' names; see `pairform.ModelOutput`."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: PairformCache | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


COMMON = [field.name for field in fields(PairformOutput) if field.name in ModelOutput.__dataclass_fields__]


def output_of(output: ModelOutput, cache: PairformCache | None) -> PairformOutput:
    """pairform's output as transformers'."""
    values: dict[str, Any] = {name: getattr(output, name) for name in COMMON}
    return PairformOutput(logits=output.logits, past_key_values=cache, **values)
