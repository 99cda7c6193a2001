"""The softcap `cap * tanh(x / cap)`."""

from jaxtyping import Float
from torch import Tensor


def softcapped(scores: Float[Tensor, "..."], cap: float) -> Float[Tensor, "..."]:
    """The softcap of `scores`, which must have no other user: it is overwritten as far as its gradient allows."""
    squashed = scores.div_(cap).tanh_()
    # the backward pass needs the result of tanh
    return squashed * cap if squashed.requires_grad else squashed.mul_(cap)
