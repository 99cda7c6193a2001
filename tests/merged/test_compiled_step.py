"""`generate(compile=True)` writes the same tokens by one compiled step, whatever the lengths in a bucket."""

from typing import Any

import torch
from torch._dynamo.utils import counters

from tests.merged.pairs import LOCAL, padded, pair, texts, wide


def asked(lengths: tuple[int, int, int], new: int) -> dict[str, Any]:
    source, prompt = padded(texts(0, lengths), "right"), padded(texts(1, (7, 2, 5)), "left")
    mask = {"attention_mask": source.mask, "decoder_attention_mask": prompt.mask}
    return {"input_ids": source.ids, "decoder_input_ids": prompt.ids, **mask, "max_new_tokens": new, "eos_token_id": ()}


def small(attention: str) -> Any:
    document = pair(attention)
    document["decoder"]["depth"] = document["encoder"]["depth"] = 2
    return wide(document, torch.float32)


def test_one_compilation_serves_all_steps_and_all_lengths_of_a_bucket() -> None:
    """The longest text moves a local layer's keys to the front of their buffers, in between two compiled steps."""
    torch._dynamo.reset()
    model = small("merged")
    wanted = asked((24, 13, 20), 130)
    assert LOCAL[0] + 2 * 64 > 130 > LOCAL[0] + 64
    compiled = model.generate(**wanted, compile=True)
    assert torch.equal(compiled, model.generate(**wanted))
    graphs = counters["stats"]["unique_graphs"]
    assert graphs > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        for lengths, new in (((30, 11, 2), 140), ((64, 1, 64), 150)):
            wanted = asked(lengths, new)
            assert torch.equal(model.generate(**wanted, compile=True), model.generate(**wanted))
    assert counters["stats"]["unique_graphs"] == graphs


def test_a_decoder_with_cross_attention_and_no_padding() -> None:
    model = small("cross")
    wanted = {"input_ids": texts(0, (20,))[0][None], "max_new_tokens": 20, "eos_token_id": ()}
    assert torch.equal(model.generate(**wanted, compile=True), model.generate(**wanted))


def test_a_text_of_one_or_two_tokens() -> None:
    """Lengths below the smallest bucket."""
    model = small("cross")
    for new in (1, 2):
        wanted = {"input_ids": texts(0, (3,))[0][None], "max_new_tokens": new, "eos_token_id": ()}
        assert torch.equal(model.generate(**wanted, compile=True), model.generate(**wanted))
