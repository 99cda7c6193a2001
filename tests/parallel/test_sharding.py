"""A sharded model is the model: gradients, generation, loading and saving, in two processes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

import pairform
from pairform.assemblies.modeling.processes import PeerError
from pairform.training.parallel import World
from tests.families import test_gpt2, test_phi3
from tests.parallel.pairs import ROWS, SPECS, batch, count, full, gradients, part
from tests.parallel.processes import run_checks
from tests.small_pairs import sharing_pair, small_pair, tokens


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    if not distributed.is_available():
        pytest.skip("torch without torch.distributed")
    return run_checks(__name__, tmp_path_factory.mktemp("two"))


def rows_of(world: World, micro: int = 1) -> list[slice]:
    """This process's rows in `micro` parts."""
    mine = ROWS // world.size
    size = mine // micro
    return [slice(begin, begin + size) for begin in range(world.rank * mine, (world.rank + 1) * mine, size)]


def refused(call: Any, *words: str) -> None:
    with pytest.raises(pairform.PairformError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def check_gradients_are_those_of_one_process(world: World, folder: Path) -> None:
    """In float64, where rounding hides no wrong factor: T5's products are so large that 1e-5 is its rounding in float32."""
    for kind, make in SPECS.items():
        whole = batch(kind, torch.float64)
        alone = pairform.build(make(), seed=0, dtype=torch.float64).train()
        alone(**whole).loss.backward()
        expected = gradients(alone)
        model = pairform.shard(pairform.build(make(), seed=0, dtype=torch.float64).train(), world.mesh)
        for micro in (1, 4):
            model.zero_grad()
            for rows in rows_of(world, micro):
                model(**part(whole, rows), loss_tokens=count(whole)).loss.backward()
            found = gradients(model)
            assert found.keys() == expected.keys(), kind
            largest = max(float(gradient.norm()) for gradient in expected.values())
            for name, gradient in expected.items():
                error = float((found[name] - gradient).norm()) / max(float(gradient.norm()), 1e-6 * largest)
                assert error < 1e-9, (kind, micro, name, error)


def check_copies_of_a_model_are_kept_alike(world: World, folder: Path) -> None:
    """A mesh of two copies that are not sharded, and activation checkpointing."""
    from torch.distributed.device_mesh import init_device_mesh

    whole = batch("t5gemma")
    alone = pairform.build(small_pair(), seed=0).train()
    alone(**whole).loss.backward()
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
    model = pairform.shard(pairform.build(small_pair(), seed=0).train(), mesh)
    model.checkpoint_layers()
    model(**part(whole, rows_of(world)[0]), loss_tokens=count(whole)).loss.backward()
    found = gradients(model)
    for name, gradient in gradients(alone).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def check_auxiliary_losses_of_all_layers_count(world: World, folder: Path) -> None:
    """FSDP must not copy what the layers of a pass write to; in mixed precision it copies all that it recognises."""
    mixture = {"name": "mixture", "experts": 4, "top_k": 2, "balance": 10.0, "expert": {"name": "gated", "hidden": 8}}
    spec = small_pair(decoder={"layer": {"branches": {"feed_forward": mixture}}})
    inputs = part(batch("t5gemma"), slice(0, 2))
    expected = pairform.build(spec, seed=0).train()(**inputs).loss
    for precision, bound in (("float32", 1e-5), ("mixed", 0.03)):
        model = pairform.shard(pairform.build(spec, seed=0).train(), world.mesh, precision)  # type: ignore[arg-type]
        torch.testing.assert_close(model(**inputs).loss, expected, rtol=bound, atol=0)


def check_mixed_precision_keeps_float32_parameters(world: World, folder: Path) -> None:
    model = pairform.shard(pairform.build(small_pair(), seed=0).train(), world.mesh, precision="mixed")
    output = model(**part(batch("t5gemma"), rows_of(world)[0]), loss_tokens=9)
    assert output.last_hidden_state is not None
    assert output.last_hidden_state.dtype == torch.bfloat16
    assert output.loss is not None
    output.loss.backward()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert {gradient.dtype for gradient in gradients(model).values()} == {torch.float32}


def check_parameters_may_be_frozen_for_some_steps(world: World, folder: Path) -> None:
    """As in a phase that trains cross-attention only; afterwards all of them get gradients."""
    whole = batch("t5gemma")
    model = pairform.shard(pairform.build(small_pair(), seed=0).train(), world.mesh)
    for frozen in (True, False):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not frozen or "cross_attention" in name)
        model.zero_grad()
        model(**part(whole, rows_of(world)[0]), loss_tokens=count(whole)).loss.backward()
        names = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert names == {name for name, _ in model.named_parameters() if not frozen or "cross_attention" in name}


def check_weights_that_changed_are_gathered_again(world: World, folder: Path) -> None:
    """After a forward pass without a backward pass, an optimiser's step counts in the next one."""
    model = pairform.shard(pairform.build(small_pair(), seed=0), world.mesh)
    inputs = part(batch("t5gemma"), slice(0, 2))
    with torch.no_grad():
        before = model(**inputs).loss
        assert all(hasattr(parameter, "full_tensor") for parameter in model.parameters())
        for parameter in model.parameters():
            parameter.mul_(0.5)
        after = model(**inputs).loss
    model(**inputs)
    for parameter in model.parameters():
        full(parameter.detach())
    assert before != after


def check_generation_needs_no_forward_pass_before(world: World, folder: Path) -> None:
    """The processes finish at different steps."""
    for kind in ("t5gemma", "t5", "shared keys, merged"):
        alone = pairform.build(SPECS[kind](), seed=0)
        model = pairform.shard(pairform.build(SPECS[kind](), seed=0), world.mesh)
        source = tokens(4 + world.rank, rows=2)
        ends = [int(alone.generate(source, max_new_tokens=2)[0, -1 - world.rank])]
        for beams in (1, 2):
            expected = alone.generate(source, max_new_tokens=8, eos_token_id=ends, num_beams=beams)
            found = model.generate(source, max_new_tokens=8, eos_token_id=ends, num_beams=beams)
            assert torch.equal(found[:, : expected.shape[1]], expected), (kind, beams)
    refused(lambda: model.generate(source, max_new_tokens=3 + world.rank), "max_new_tokens")
    refused(lambda: model.generate(source, max_new_tokens=3, eos_token_id=[1] * world.rank), "end tokens")
    prompt = tokens(1, rows=2, length=3 + world.rank)
    refused(lambda: model.generate(source, max_length=8, decoder_input_ids=prompt), "max_new_tokens")
    refused(lambda: model.generate(source, max_new_tokens=3, compile=True), "compile")
    refused(lambda: model.generate(source.float(), max_new_tokens=3), "input_ids")
    model.generate(source, max_new_tokens=2)


def check_logits_beside_labels(world: World, folder: Path) -> None:
    model = pairform.shard(pairform.build(small_pair(), seed=0), world.mesh)
    inputs = part(batch("t5gemma"), slice(0, 2))
    expected = pairform.build(small_pair(), seed=0)(**inputs).logits
    torch.testing.assert_close(model(**inputs).logits, expected)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs, output_logits=True).logits, expected.detach())
        refused(lambda: model(**inputs).logits, "logits", "output_logits=True")
    output = model(**inputs)
    output.loss.backward()
    refused(lambda: output.logits, "logits", "output_logits=True")


def check_modules_wrapped_by_hand(world: World, folder: Path) -> None:
    inputs = part(batch("t5gemma"), slice(0, 2))

    def wrapped(*parts: str) -> Any:
        model: Any = pairform.build(small_pair(), seed=0)
        for name in parts:
            fully_shard(model.get_submodule(name), mesh=world.mesh)
        return fully_shard(model, mesh=world.mesh)

    refused(lambda: wrapped("decoder.embedding")(**inputs), "head", "pairform.shard")
    refused(lambda: wrapped("encoder", "decoder")(**inputs), "head", "pairform.shard")
    refused(lambda: wrapped().generate(inputs["input_ids"], max_new_tokens=2), "embeddings", "pairform.shard")
    refused(lambda: pairform.shard(wrapped(), world.mesh), "sharded")
    sharded = pairform.shard(pairform.build(small_pair(), seed=0), world.mesh)
    refused(lambda: pairform.shard(sharded, world.mesh), "sharded")
    refused(lambda: pairform.carry(sharded), "sharded")
    refused(lambda: pairform.shard(pairform.build(small_pair(), seed=0), "mesh"), "mesh")  # type: ignore[arg-type]
    refused(lambda: pairform.shard(nn.Linear(2, 2), world.mesh), "a Linear")  # type: ignore[arg-type]
    refused(lambda: pairform.shard(pairform.build(small_pair(), seed=0), world.mesh, "half"), "precision")  # type: ignore[arg-type]


def check_a_sharded_model_is_saved_as_itself(world: World, folder: Path) -> None:
    tokens = folder / "tokens"
    if world.first:  # the others do not read it
        tokens.mkdir()
        (tokens / "tokenizer.json").write_text("{}")
    for kind, format_ in (("t5gemma", "transformers"), ("t5gemma2", "pairform"), ("t5", "pairform"), ("pictures", "pairform")):
        alone = pairform.build(SPECS[kind](), seed=0)
        alone.generation = pairform.GenerationSpec(top_k=7)
        options: dict[str, Any] = {"format": format_, "max_shard_size": "30KB", "companions": tokens}
        if world.first:
            pairform.save(alone, folder / kind / "alone", **options)
        sharded = pairform.shard(pairform.build(SPECS[kind](), seed=0), world.mesh)
        sharded.generation = alone.generation
        pairform.save(sharded, folder / kind / "sharded", **options)
        names = sorted(path.name for path in (folder / kind / "alone").iterdir())
        assert names == sorted(path.name for path in (folder / kind / "sharded").iterdir())
        assert len(names) > 5
        assert "tokenizer.json" in names
        for name in names:
            assert (folder / kind / "alone" / name).read_bytes() == (folder / kind / "sharded" / name).read_bytes(), name


def check_an_error_of_the_writer_ends_saving_everywhere(world: World, folder: Path) -> None:
    sharded = pairform.shard(pairform.build(small_pair(), seed=0), world.mesh)
    kept = folder / "kept"
    if world.first:
        kept.mkdir()
        (kept / "diary").write_text("mine")
    world.barrier()
    with pytest.raises(pairform.PairformError) as caught:
        pairform.save(sharded, kept)
    assert isinstance(caught.value, PeerError) == (not world.first)
    assert ("kept" in str(caught.value)) == world.first
    pairform.save(sharded, folder / "new")


def check_each_process_loads_its_rows(world: World, folder: Path) -> None:
    for kind, make in SPECS.items():
        if world.first:
            pairform.save(pairform.build(make(), seed=3, dtype=torch.bfloat16), folder / kind)
    world.barrier()
    for kind in SPECS:
        alone = dict(pairform.load(folder / kind, dtype=torch.float32).named_parameters())
        model: Any = pairform.load(folder / kind, mesh=world.mesh, dtype=torch.float32)
        assert not model.training
        for name, parameter in model.named_parameters():
            assert parameter.to_local().shape[0] <= -(-parameter.shape[0] // 2), name
            assert torch.equal(full(parameter), alone[name]), name
        whole = batch(kind)
        model.train()(**part(whole, rows_of(world)[0]), loss_tokens=count(whole)).loss.backward()
    refused(lambda: pairform.load(folder / "t5", mesh=world.mesh, quantise="int8"), "mesh")
    refused(lambda: pairform.load(folder / "t5", mesh=world.mesh, prepack=True), "mesh")
    refused(lambda: pairform.load(folder / "t5", precision="mixed"), "precision")


def check_fused_tensors_are_sharded_by_their_parts(world: World, folder: Path) -> None:
    """Rows of a stored tensor in Phi-3's files, columns in GPT-2's."""
    made: dict[str, Callable[[Path], Path]] = {
        "phi3": partial(test_phi3.create, resid_pdrop=0.1),
        "gpt2": test_gpt2.create,
    }
    for kind, make in made.items():
        path = folder / kind
        if world.first:
            make(path)
        world.barrier()
        alone = dict(pairform.load(path).named_parameters())
        model: Any = pairform.load(path, mesh=world.mesh)
        for name, parameter in model.named_parameters():
            assert torch.equal(full(parameter), alone[name]), name
        pairform.save(model, folder / f"{kind}-back", format="transformers", max_shard_size="30KB")
        world.barrier()
        back = dict(pairform.load(folder / f"{kind}-back").named_parameters())
        assert all(torch.equal(parameter, back[name]) for name, parameter in alone.items())


def check_quantised_weights_are_not_sharded(world: World, folder: Path) -> None:
    if world.first:
        pairform.save(pairform.build(small_pair(), seed=0), folder / "model")
    world.barrier()
    refused(lambda: pairform.shard(pairform.load(folder / "model", prepack=True), world.mesh), "prepacked")


def check_projections_shared_by_processes(world: World, folder: Path) -> None:
    """Tensor parallelism: grouped heads, merged attention with norms of queries and keys, shared keys, and what stays whole."""
    from torch.distributed.tensor.parallel import parallelize_module

    assert world.mesh is not None
    for kind, divided in {"t5gemma": 36, "t5gemma2": 28, "t5": 30, "shared keys": 62, "shared keys, merged": 46}.items():
        whole = batch(kind, torch.float64)
        alone = pairform.build(SPECS[kind](), seed=0, dtype=torch.float64).train()
        alone(**whole).loss.backward()
        model = pairform.build(SPECS[kind](), seed=0, dtype=torch.float64).train()
        parallelize_module(model, world.mesh, pairform.parallel_plan(model.spec, processes=2))
        sharded = [name for name, parameter in model.named_parameters() if hasattr(parameter, "full_tensor")]
        assert len(sharded) == divided, kind
        output = model(**whole)
        torch.testing.assert_close(output.logits, alone(**whole).logits, rtol=1e-9, atol=1e-9)
        output.loss.backward()
        expected = gradients(alone)
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-10, msg=f"{kind}: {name}")
        pairform.save(model, folder / kind)
        loaded = dict(pairform.load(folder / kind).named_parameters())
        assert all(torch.equal(parameter, loaded[name]) for name, parameter in alone.named_parameters())
    single = pairform.patch(small_pair(), {"decoder": {"layer": {"branches": {"self_attention": {"kv_heads": 1}}}}})
    model = pairform.build(single, seed=0)
    refused(lambda: parallelize_module(model, world.mesh, pairform.parallel_plan(single)), "1 kv_heads for 2 processes")


def check_an_error_of_one_process_is_raised_in_all(world: World, folder: Path) -> None:
    def fails() -> None:
        with world.together("a test"):
            assert world.rank == 0, "an error of process 1"

    with pytest.raises(AssertionError if world.rank == 1 else PeerError):
        fails()
    assert int(world.sum(torch.tensor(world.rank + 1))) == 3


CHECKS = [name for name in dir() if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS)
def test_in_two_processes(check: str, outcomes: dict[str, str]) -> None:
    failed = {name: text for name, text in outcomes.items() if name.startswith((f"{check} ", "process"))}
    assert not failed, "\n".join(f"{name}: {text}" for name, text in failed.items())


def test_fewer_key_heads_than_processes_are_refused() -> None:
    refused(
        lambda: pairform.parallel_plan(small_pair(), processes=4), "self_attention.block.k_proj", "2 kv_heads for 4 processes"
    )


def test_blocks_that_share_keys_are_divided_all_or_none() -> None:
    """Sinks keep the third layer whole, and with it the first, whose keys it reads, but not the others."""
    spec = sharing_pair()
    assert spec.encoder is not None
    sinks = {"layers": [2], "patch": {"branches": {"self_attention": {"sinks": True}}}}
    overrides = [*spec.document()["encoder"]["overrides"], sinks]
    divided = [
        {name.split(".")[2] for name in pairform.parallel_plan(each) if name.startswith("encoder.") and "attention" in name}
        for each in (spec, pairform.patch(spec, {"encoder": {"overrides": overrides}}))
    ]
    assert divided == [{"0", "1", "2", "3"}, {"1", "3"}]
