"""torch's fused scaled_dot_product_attention."""

from functools import partial

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import Answer, AttentionCall, Parts
from pairform.blocks.attention.kernels.biases import join, mask_bias, with_bias


def sdpa(
    queries: Float[Tensor, "batch heads q head_dim"],
    keys: Parts,
    values: Parts,
    call: AttentionCall,
) -> Answer:
    """torch's fused scaled_dot_product_attention.

    A query with no key to attend to is set to zero and unmasked, which spreads it evenly too, and is a constant to training:
    under a mask's huge numbers the fused backward loses the count of keys, and gradients grow by it in each layer.
    """
    hidden = mask_bias(call.mask, queries)
    bias = with_bias(hidden, call, queries)
    if hidden is not None and bias is not None and call.mask.padded:
        lost = call.mask.once("lowered lost", partial(keyless, hidden))
        queries, bias = queries.masked_fill(lost, 0), bias.masked_fill(lost, 0)
    mixed = functional.scaled_dot_product_attention(
        queries,
        join(keys, 2),
        join(values, 2),
        attn_mask=bias,
        dropout_p=call.dropout,
        scale=call.scale,
        enable_gqa=queries.shape[1] != keys[0].shape[1],
    )
    return mixed, None


def keyless(bias: Tensor) -> Tensor:
    """Which queries have no key to attend to."""
    return bias.ne(0).all(-1, keepdim=True)
