"""Terms of a language model's loss besides the cross-entropy: z-loss, and distillation from a teacher."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Teacher:
    """Another model's prediction of the same tokens, before its logits are computed.

    hidden:      `[..., teacher_width]`, in the order of the labels: the input of the teacher's projection.
    table:       the teacher's projection.
    softcap:     of the teacher's logits; None for none.
    weight:      of the distillation loss, from 0 to 1; that of the cross-entropy is `1 - weight`.
    temperature: divides the logits of both models.
    bias:        added to the teacher's logits before its softcap; None for none.
    """

    hidden: Float[Tensor, "*batch teacher_width"]
    table: Float[Tensor, "vocabulary teacher_width"]
    softcap: float | None = None
    weight: float = 0.5
    temperature: float = 1.0
    bias: Float[Tensor, " vocabulary"] | None = None


@dataclass(frozen=True)
class LossTerms:
    """What a loss consists of, each a mean over labels.

    z_loss:  coefficient of the mean of `logsumexp(logits) ** 2` (PaLM; Chowdhery et al. 2022, arXiv 2204.02311, section 5), of
             the logits after the softcap.
    teacher: adds `weight * temperature ** 2 * KL(teacher || model)` and multiplies the cross-entropy by `1 - weight` (Hinton
             et al. 2015, arXiv 1503.02531, section 2).
    """

    z_loss: float = 0.0
    teacher: Teacher | None = None

    @property
    def factors(self) -> "Factors":
        """The factors as numbers, as the fused loss takes them."""
        if self.teacher is None:
            return Factors(self.z_loss)
        return Factors(self.z_loss, self.teacher.weight, self.teacher.temperature, self.teacher.softcap or 0.0)


class Factors(NamedTuple):
    """The numbers in `LossTerms`, as an operator takes them. softcap: the teacher's; 0 for none."""

    z_loss: float = 0.0
    weight: float = 0.0
    temperature: float = 1.0
    softcap: float = 0.0


class LossParts(NamedTuple):
    """The parts of a loss, without gradients: `(1 - weight) * cross_entropy + z_loss + weight * distillation_loss` is the loss.

    cross_entropy:     `[]`.
    z_loss:            `[]`, times its coefficient.
    distillation_loss: `[]`, times `temperature ** 2`.
    """

    cross_entropy: Tensor
    z_loss: Tensor
    distillation_loss: Tensor
