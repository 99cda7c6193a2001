"""The end of a forward pass: the head's prediction, and the loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pairform.assemblies.modeling.base import ModelParts
from pairform.assemblies.modeling.inputs import StackInputs, mask_padding
from pairform.assemblies.modeling.stack import StackOutput
from pairform.blocks.context import begins
from pairform.blocks.heads.labels import IGNORED
from pairform.blocks.heads.loss_terms import LossParts, LossTerms
from pairform.blocks.heads.prediction import Prediction


@dataclass(frozen=True)
class LossArguments:
    """The arguments of `Model.forward` for the logits and the loss."""

    labels: Tensor | None
    output_logits: bool | None
    loss_tokens: int | Tensor | None
    loss_terms: LossTerms | None


def predict(
    model: ModelParts,
    last: StackOutput,
    inputs: StackInputs,
    asked: LossArguments,
    encoded: StackOutput | None = None,
    *,
    shift: bool = False,
) -> tuple[Prediction, Tensor | None, Tensor | None, LossParts | None]:
    """The (lazy) logits, the loss, the auxiliary loss included in it, and the loss's other parts if `loss_terms` ask for them.

    Args:
        last: the output of the last stack, for `inputs`.
        encoded: in an encoder-decoder the output of the encoder, if it ran in this call.
        shift: each token predicts the next.
    """
    valid = mask_padding(inputs, model.spec.tokens.pad).valid  # classifiers read the last token that is not padding
    prediction = Prediction(model.head, model.lowered(last.hidden), valid, model.tied())
    stacks = (last,) if encoded is None else (encoded, last)
    auxiliary = [stack.auxiliary_loss for stack in stacks if stack.auxiliary_loss is not None]
    auxiliary_loss = torch.stack(auxiliary).sum() if auxiliary else None
    loss: Tensor | None = None
    parts: LossParts | None = None
    labels = asked.labels
    if labels is not None:
        if shift and inputs.segments is not None:  # do not predict across document boundaries
            labels = labels.masked_fill(begins(inputs.segments[:, -labels.shape[1] :]), IGNORED)
        counted = () if asked.loss_tokens is None else (torch.as_tensor(asked.loss_tokens).to(last.hidden.device),)
        if asked.loss_terms is None:
            loss = model.head.loss(prediction, labels, shift, *counted)
        else:
            loss, parts = model.head.losses(prediction, labels, shift, *counted, terms=asked.loss_terms)
        loss = loss if auxiliary_loss is None or loss is None else loss + auxiliary_loss
    if asked.output_logits or (asked.output_logits is None and labels is None):
        _ = prediction.logits  # computes and keeps them
    prediction.keep_track()
    return prediction, loss, auxiliary_loss, parts
