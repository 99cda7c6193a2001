"""One token in bfloat16 takes a product of its own on a CPU; it gives what many tokens get."""

import torch

import pairform
from tests.merged.pairs import pair, wide


def test_one_row_gets_the_logits_that_two_rows_get() -> None:
    model = wide(pair(), torch.bfloat16)
    source, token = torch.randint(3, 96, (1, 12)), torch.tensor([[2]])
    enabled = torch.backends.mkldnn.enabled
    with torch.no_grad():
        alone = model(source, decoder_input_ids=token).logits
        both = model(source.repeat(2, 1), decoder_input_ids=token.repeat(2, 1)).logits
    assert alone is not None
    assert both is not None
    assert torch.backends.mkldnn.enabled == enabled
    torch.testing.assert_close(alone[0], both[1], rtol=2e-2, atol=2e-2 * float(both.abs().max()))


def test_gradients_pass_through_one_token() -> None:
    model = wide(pair(), torch.bfloat16)
    output: pairform.ModelOutput = model(torch.tensor([[5, 7]]), decoder_input_ids=torch.tensor([[2]]))
    assert output.logits is not None
    assert model.decoder is not None
    weights = [parameter for name, parameter in model.decoder.named_parameters() if "q_proj" in name]
    gradients = torch.autograd.grad(output.logits.float().square().sum(), weights)
    assert all(gradient.ne(0).any() for gradient in gradients)
