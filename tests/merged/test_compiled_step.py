"""`generate(compile=True)` writes the same tokens by one compiled step, whatever the lengths in a bucket."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

import pairform
from pairform.assemblies.generation import compiled_step
from pairform.blocks.context import TokenSlot
from tests.merged.pairs import LOCAL, padded, pair, texts, wide


def asked(lengths: tuple[int, int, int], new: int) -> dict[str, Any]:
    source, prompt = padded(texts(0, lengths), "right"), padded(texts(1, (7, 2, 5)), "left")
    mask = {"attention_mask": source.mask, "decoder_attention_mask": prompt.mask}
    return {"input_ids": source.ids, "decoder_input_ids": prompt.ids, **mask, "max_new_tokens": new, "eos_token_id": ()}


def small(attention: str) -> Any:
    return wide(pair(attention), torch.float32)


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


@pytest.mark.usefixtures("graphs_as_traced")
def test_a_text_of_one_or_two_tokens() -> None:
    """Lengths below the smallest bucket."""
    model = small("cross")
    for new in (1, 2):
        wanted = {"input_ids": texts(0, (3,))[0][None], "max_new_tokens": new, "eos_token_id": ()}
        assert torch.equal(model.generate(**wanted, compile=True), model.generate(**wanted))


def test_a_graph_is_captured_anew_when_what_it_reads_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph knows tensors by address, and another tensor may come to lie at the address of one that is gone."""
    captured: list[object] = []

    class Recorded:
        def __init__(self, run: Any, *inputs: Any) -> None:
            captured.append(self)
            self.run = run

        def __call__(self, *inputs: Any) -> Any:
            return self.run(*inputs)

    monkeypatch.setattr(compiled_step, "Captured", Recorded)
    monkeypatch.setattr(compiled_step, "compiled_step", lambda model: compiled_step.step)
    model, cache = small("cross"), pairform.Cache(room=32)
    ids = texts(1, (4,))[0][None]
    with torch.no_grad():
        read = model(texts(0, (5,))[0][None], decoder_input_ids=ids, cache=cache).encoder_last_hidden_state
        source = model.source(read, None)
        step = compiled_step.CompiledStep(model)
        monkeypatch.setattr(step, "run", compiled_step.step)

        def replays(times: int) -> None:
            for _ in range(times):
                slots = {own.window: TokenSlot(torch.tensor([own.advance()]), None) for own in cache.own.values()}
                step.replay(ids[:, :1], torch.full((1, 1), cache.length), slots, source, cache)

        replays(3)
        assert len(captured) == 1
        cache = cache.rows(torch.tensor([0]))
        replays(1)
        assert len(captured) == 1
        replays(2)
        assert len(captured) == 2
        own = next(iter(cache.own.values()))
        own.buffers = replace(own.buffers, values=own.buffers.values.clone())
        replays(2)
        assert len(captured) == 3
