"""The head of a language model as libraries over transformers use it: a matrix, and perhaps a bias."""

from typing import Any

from torch import Tensor, nn

from pairform.assemblies.modeling.base import ModelParts
from pairform.blocks.functional.linear import linear
from pairform.blocks.heads.token_heads import LMHead
from pairform.blocks.mixture import MixtureOfExperts
from pairform.registry import InputError, Problem


class NoMatrixError(InputError, AttributeError):
    """The head is more than a matrix. An `AttributeError` to libraries that ask whether there is a `weight`."""


class OutputProjection(nn.Module):
    """The projection of a model's last hidden states to its logits. Holds no weights of its own.

    weight: `[vocabulary, width]`. Reading it raises `NoMatrixError` if the head, or the loss, computes more than the product
            with it, the bias, and the configuration's `logit_scale` and `final_logit_softcapping`.
    """

    model: ModelParts
    head: LMHead

    def __init__(self, model: ModelParts, head: LMHead) -> None:
        super().__init__()
        vars(self).update(model=model, head=head)  # not as submodules

    def __getattr__(self, name: str) -> Any:
        # no property: nn.Module replaces the message of its AttributeError
        return self.matrix() if name == "weight" else super().__getattr__(name)

    @property
    def bias(self) -> Tensor | None:
        bias: Tensor | None = self.head.bias
        return bias

    def matrix(self) -> Tensor:
        model, head = self.model, self.head
        weight = head.weight if model.tie is None else model.tied()
        assert weight is not None
        mixtures = (module.spec for module in model.modules() if isinstance(module, MixtureOfExperts))
        problems = {
            "a dense layer before the projection": head.transform is not None,
            "a table of another width than the hidden states": weight.shape[-1] != model.spec.last.width,
            "a factor together with a bias": head.factor is not None and head.bias is not None,
            "the auxiliary losses of a mixture of experts": any(spec.balance or spec.z_loss for spec in mixtures),
        }
        if found := [name for name, there in problems.items() if there]:
            remedy = "Train it with transformers' Trainer, which takes the loss that the model computes."
            expected = "a head that is one matrix, for a loss that is computed outside of the model"
            raise NoMatrixError(Problem("get_output_embeddings", " and ".join(found), expected, remedy))
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """The product, and the bias if there is one."""
        return linear(hidden, self.weight, self.bias)
