"""What holds for every registered block, wherever a spec takes it. A new block is covered by being registered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounterWithBackend

import pairform
from tests.catalogue.places import BLOCKS, answer, inputs, loss_of, places
from tests.catalogue.together import together

SCHEMA = Draft202012Validator(pairform.schema())
every_block = pytest.mark.parametrize(("kind", "name"), BLOCKS, ids=lambda word: word)


@every_block
def test_its_example_is_valid_and_stands_somewhere(kind: str, name: str) -> None:
    block = pairform.blocks(kind)[name]
    example = block.Spec.example()
    assert SCHEMA.evolve(schema={"$ref": f"#/$defs/{kind}.{name}", "$defs": SCHEMA.schema["$defs"]}).is_valid(example)
    assert block.Spec.read(example).name == name
    assert places(kind, name), "no small model takes it"
    for spec in places(kind, name).values():
        SCHEMA.validate(spec.document())
        assert pairform.load_spec(spec.document()) == spec


@every_block
def test_every_parameter_learns(kind: str, name: str) -> None:
    """Or says that it does not, by `requires_grad`."""
    for place, spec in places(kind, name).items():
        model = pairform.build(spec, seed=0).train()
        loss = loss_of(model, inputs(spec))
        torch.autograd.backward(loss)
        assert loss.isfinite(), place
        for parameter, tensor in model.named_parameters():
            if tensor.requires_grad:
                assert tensor.grad is not None, f"{place}: {parameter} has no gradient"
                assert tensor.grad.isfinite().all(), f"{place}: {parameter}"


@every_block
def test_it_decodes_with_a_cache_as_without(kind: str, name: str) -> None:
    for place, spec in places(kind, name).items():
        if spec.decoder is None or spec.head.name != "lm":
            continue
        model = pairform.build(spec, seed=0, dtype=torch.float64)
        batch = inputs(spec)
        batch.pop("decoder_input_ids", None)
        batch = {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}
        options: dict[str, Any] = {"max_new_tokens": 5, "eos_token_id": ()}
        cached, uncached = (model.generate(**batch, **options, use_cache=used) for used in (True, False))
        assert torch.equal(cached, uncached), place
        beams = [model.generate(**batch, **options, num_beams=2, use_cache=used) for used in (True, False)]
        assert torch.equal(*beams), place


@every_block
def test_it_is_the_same_after_saving_and_loading(kind: str, name: str, tmp_path: Path) -> None:
    for place, spec in places(kind, name).items():
        model, out = pairform.build(spec, seed=0), tmp_path / place
        pairform.save(model, out)
        again = pairform.load(out)
        assert again.spec == spec
        assert again.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items()), place
        stored = load_file(out / "model.safetensors")
        assert set(stored) == {key for key, _ in model.named_parameters()}, place


SHARDS = 4


@pytest.mark.parametrize("shard", range(SHARDS))
def test_models_of_all_blocks_compile_without_a_break(shard: int) -> None:
    """Graphs are run as they were traced: to generate machine code takes a compiler minutes."""
    found = together()
    assert {block for blocks, _ in found for block in blocks} == set(BLOCKS)
    for _, spec in found[shard::SHARDS]:
        check_compiles(spec)


def check_compiles(spec: pairform.ModelSpec) -> None:
    torch._dynamo.reset()
    spec = pairform.patch(spec, {part: {"depth": 1} for part in spec.stacks})
    batch, model = inputs(spec), pairform.build(spec, seed=0)
    graphs = CompileCounterWithBackend("eager")
    compiled: Any = torch.compile(model, fullgraph=True, backend=graphs)
    torch.testing.assert_close(answer(compiled, batch), answer(model, batch), rtol=1e-5, atol=1e-5)
    assert graphs.frame_count
