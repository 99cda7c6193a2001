"""The written file computes what the eager kernel computes, bit for bit in float32, and generates the same tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pairform
from tests.eject.small import both, small
from tests.eject.variants import PRESETS, VARIANTS

SPECS: dict[str, tuple[str, dict[str, Any]]] = {**{preset: (preset, {}) for preset in PRESETS}, **VARIANTS}


def padded(seed: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Tokens, none of them special, of rows of different lengths, and their mask. The longest exceeds the windows."""
    ids = torch.randint(8, 97, (3, 11), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    for row, count in enumerate((0, 3, 8)):
        part = slice(0, count) if left else slice(11 - count, 11)
        ids[row, part], mask[row, part] = 0, 0
    return ids, mask


@pytest.mark.parametrize("name", ["t5gemma-b-b", "gemma-2-2b", "t5-v1.1-base"])
def test_long_batches_and_every_step_of_generation_are_equal_too(name: str, tmp_path: Path) -> None:
    """Without gradients, pairform processes many tokens in groups, and generation with a cache in single steps."""
    model, written = both(small(name), tmp_path)
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(8, 97, (8, 300), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 250:] = 0
    arguments = (ids, mask) if model.encoder is None else (ids, mask, ids[:, :37])
    assert torch.equal(written(*arguments), model(*arguments).logits)
    with torch.no_grad():
        assert torch.equal(written(*arguments), model(*arguments).logits)

    steps: list[Tensor] = []
    computed = written.logits

    def recorded(hidden: Tensor) -> Tensor:
        steps.append(computed(hidden))
        return steps[-1]

    written.logits = recorded
    tokens = written.generate(ids[:, 270:], mask[:, 270:], max_new_tokens=30)
    expected = model.generate(ids[:, 270:], mask[:, 270:], max_new_tokens=30, return_dict_in_generate=True, output_logits=True)
    assert torch.equal(tokens, expected.sequences)
    assert expected.logits is not None
    assert len(steps) == len(expected.logits)
    assert all(torch.equal(step[:, 0], logits) for step, logits in zip(steps, expected.logits, strict=True))


def test_the_file_reads_weights_of_branches_with_other_names(tmp_path: Path) -> None:
    document = small("gemma-2-2b").document()
    layer = document["decoder"]["layer"]
    layer["branches"]["NAME"] = layer["branches"].pop("feed_forward")
    layer["order"] = ["NAME", "self_attention"]
    model, written = both(pairform.load_spec(document), tmp_path)
    ids, mask = padded(1, left=False)
    assert torch.equal(written(ids, mask), model(ids, mask).logits)


@pytest.mark.parametrize("name", SPECS)
def test_the_file_equals_the_eager_kernel(name: str, tmp_path: Path) -> None:
    preset, changes = SPECS[name]
    model, written = both(small(preset, changes), tmp_path)
    pair = model.encoder is not None and model.decoder is not None
    for left in (False, True):
        ids, mask = padded(1, left=left)
        # with gradients, too
        arguments: tuple[Tensor | None, ...] = (ids, mask)
        if pair:
            arguments += padded(2, left=left)
        assert torch.equal(written(*arguments), model(*arguments).logits)
        assert torch.equal(written(ids, None, *arguments[2:]), model(ids, None, *arguments[2:]).logits)
        if model.decoder is not None:
            tokens = model.generate(ids, mask, max_new_tokens=12)
            assert torch.equal(written.generate(ids, mask, max_new_tokens=12), tokens)
            assert len(set(tokens[:, 1:].flatten().tolist())) > 4
    assert sum(parameter.numel() for parameter in written.parameters()) == sum(
        parameter.numel() for parameter in model.parameters()
    )
    assert isinstance(model, pairform.Model)
