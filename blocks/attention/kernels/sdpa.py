"""torch's fused scaled_dot_product_attention."""

from functools import partial

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pairform.blocks.attention.kernels.arguments import AttentionCall, Output, Parts
from pairform.blocks.attention.kernels.biases import join, mask_bias, with_bias


def sdpa(
    queries: Float[Tensor, "batch heads q head_dim"],
    keys: Parts,
    values: Parts,
    call: AttentionCall,
) -> Output:
    """torch's fused scaled_dot_product_attention.

    A fully masked query is set to zero and its mask removed. Its output is then the average of all values, as in `eager`, with
    no gradient to the query. With the mask's large negative numbers the fused backward pass would lack the division by the
    number of keys, and gradients would grow by that factor in each layer.
    """
    hidden = mask_bias(call.mask, queries)
    bias = with_bias(hidden, call, queries)
    if hidden is not None and bias is not None and call.mask.padded:
        # a query of zeros scores 0 on every key, so that without its mask all weights are equal
        fully_masked = call.mask.once("lowered fully_masked", partial(keyless, hidden))
        queries, bias = queries.masked_fill(fully_masked, 0), bias.masked_fill(fully_masked, 0)
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
    """True at fully masked queries, by their mask bias."""
    return bias.ne(0).all(-1, keepdim=True)
