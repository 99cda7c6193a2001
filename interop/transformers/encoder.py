"""The encoder of a pair as an object of its own, for transformers' `generate` and for embeddings."""

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from pairform.assemblies.modeling.inputs import StackInputs, as_mask, mask_padding
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.modeling.outputs import ModelOutput

LAYER = "layer_"
"""Before the number of an encoder layer that the decoder reads, in the names of an encoder's output."""


class EncoderOf:
    """Runs the encoder of `model`. Holds no weights of its own, so that replaced modules are used too."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, *arguments: Any, **named: Any) -> BaseModelOutput:
        return self.forward(*arguments, **named)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        return_dict: bool = True,
    ) -> BaseModelOutput:
        """The encoder's hidden states, and those of single layers that the decoder reads under `layer_<number>`."""
        model = self.model
        assert model.encoder is not None
        valid = as_mask(attention_mask)
        inputs = StackInputs(input_ids, inputs_embeds, valid, position_ids, pixel_values, token_types=token_type_ids)
        inputs = mask_padding(inputs, model.padding)
        encoded = model.encoder(
            inputs, layers=model.source_layers, hidden_states=output_hidden_states, attentions=output_attentions
        )
        output = BaseModelOutput(encoded.hidden, encoded.hidden_states, encoded.attentions.get("own"))
        for layer, hidden in encoded.layers.items():
            output[f"{LAYER}{layer}"] = hidden
        return output


def encoder_output(given: Any) -> Any:
    """`encoder_outputs` as pairform takes them: an output of `EncoderOf` with its layers."""
    if not isinstance(given, BaseModelOutput):
        return given
    layers = {int(name.removeprefix(LAYER)): hidden for name, hidden in given.items() if name.startswith(LAYER)}
    return ModelOutput(encoder_last_hidden_state=given.last_hidden_state, encoder_layers=layers or None)
