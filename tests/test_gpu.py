"""On a GPU: the same numbers as on the CPU, and the same tokens, for every family, any spec and every way to run a model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

import pairform
from pairform.blocks.heads.loss_terms import LossTerms, Teacher
from tests.catalogue.any_spec import Document, documents
from tests.catalogue.places import answer
from tests.catalogue.places import inputs as inputs_of
from tests.checkpoints import gemma2, gemma3, gemma3_text, t5gemma, t5gemma2
from tests.merged.pairs import pair, wide
from tests.parity.pictures import pictured
from tests.small_pairs import small_pair, tokens
from tests.studies.small_study import result, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none")
FAMILIES: dict[str, Any] = {
    "gemma2": gemma2,
    "t5gemma": t5gemma,
    "gemma3_text": gemma3_text,
    "gemma3": gemma3,
    "t5gemma2": t5gemma2,
}
TEXT = "t5gemma", "gemma2", "gemma3_text"


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> None:
    torch._dynamo.reset()


def batch(family: str, device: str) -> dict[str, Any]:
    """Two rows, one of them padded; with pictures where the family reads them."""
    if family in TEXT:
        ids = torch.randint(3, 96, (2, 13), generator=torch.Generator().manual_seed(0))
        ids[0, 9:] = 0
        read: dict[str, Tensor] = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    else:
        read = pictured(padding="left").inputs
    return {name: value.to(device) for name, value in read.items()}


def labels_of(read: dict[str, Tensor]) -> Tensor:
    return read["input_ids"].masked_fill(read["attention_mask"] == 0, -100)


def gradients(model: pairform.Model) -> dict[str, Tensor]:
    return {name: parameter.grad.cpu() for name, parameter in model.named_parameters() if parameter.grad is not None}


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    """Each tensor in units of its own largest value, and no smaller than a thousandth of the largest of all."""
    assert one.keys() == other.keys()
    least = 1e-3 * max(float(tensor.abs().max()) for tensor in other.values())
    for name, tensor in other.items():
        apart = float((one[name].cpu() - tensor.cpu()).abs().max()) / max(float(tensor.abs().max()), least)
        assert apart <= tolerance, f"{name} differs by {apart:.2g} of its largest value"


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_the_cpus(family: str, tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path / "model")
    found = []
    for device in ("cpu", "cuda"):
        model, read = pairform.load(folder, device=device), batch(family, device)
        output = model(**read, labels=labels_of(read))
        assert output.loss is not None
        assert output.logits is not None
        output.loss.backward()
        found.append(({"logits": output.logits.detach()}, gradients(model)))
    same(found[1][0], found[0][0], 1e-4)
    same(found[1][1], found[0][1], 1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"compile": True}], ids=["greedy", "beams", "compiled"])
def test_generation_equals_the_cpus(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    folder = FAMILIES[family](tmp_path / "model")
    plain = {name: value for name, value in options.items() if name != "compile"}
    here = pairform.load(folder).generate(**batch(family, "cpu"), max_new_tokens=24, eos_token_id=(), **plain)
    there = pairform.load(folder, device="cuda").generate(
        **batch(family, "cuda"), max_new_tokens=24, eos_token_id=(), **options
    )
    assert torch.equal(there.cpu(), here)


def test_the_captured_step_serves_other_sources_and_longer_texts() -> None:
    """Buffers grow and local layers' keys move to their front while a text is written; each call has a source of its own."""
    here = wide(pair("merged"), torch.float32)
    there = wide(pair("merged"), torch.float32).to("cuda")
    for seed, new in ((0, 150), (1, 20), (2, 150)):
        read = tokens(seed, length=20) % 96
        written = there.generate(read.cuda(), max_new_tokens=new, eos_token_id=(), compile=True)
        assert torch.equal(written.cpu(), here.generate(read, max_new_tokens=new, eos_token_id=()))


@settings(max_examples=40)
@given(documents())
def test_any_spec(document: Document) -> None:
    try:
        spec = pairform.load_spec(document)
    except pairform.PairformError:
        assume(False)
    read = inputs_of(spec)
    found = []
    for device in ("cpu", "cuda"):
        model = pairform.build(spec, device=device, seed=0)
        with torch.no_grad():
            found.append({"answer": answer(model, {name: value.to(device) for name, value in read.items()})})
    same(found[1], found[0], 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("preset", ["t5gemma-b-b", "t5gemma2-270m-270m"])
def test_long_sequences_take_the_kernels_that_hold_no_scores(preset: str, dtype: torch.dtype) -> None:
    spec = small_pair(preset, head_dim=16)
    read, written = tokens(length=1100), tokens(1, length=700)
    read[0, 1000:] = 0
    expected = pairform.build(spec, seed=0, kernel="eager")
    model = pairform.build(spec, device="cuda", dtype=dtype, seed=0)
    found = []
    for each in (model, expected):
        device = next(each.parameters()).device
        output = each(read.to(device), attention_mask=(read != 0).to(device), labels=written.to(device))
        assert output.loss is not None
        assert output.logits is not None
        output.loss.backward()
        found.append({"logits": output.logits.detach().float(), "loss": output.loss.detach().float()[None]})
    same(found[0], found[1], 1e-3 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("preset", ["t5gemma-b-b", "t5gemma2-270m-270m"])
def test_compiled_layers_computed_again_train_as_by_themselves(preset: str) -> None:
    spec = small_pair(preset, depth=3, head_dim=16)
    found = []
    for whole in (True, False):
        model = pairform.build(spec, device="cuda", seed=0).train()
        if not whole:
            model.compile_layers(fullgraph=True)
            model.checkpoint_layers(2)
        output = model(tokens(length=40).cuda(), labels=tokens(1, length=30).cuda())
        assert output.loss is not None
        output.loss.backward()
        found.append(gradients(model))
    same(found[1], found[0], 1e-3)


def test_autocast_trains_in_half_precision() -> None:
    model = pairform.build(small_pair(), device="cuda", seed=0).train()
    with torch.autocast("cuda", torch.bfloat16):
        half = model(tokens().cuda(), labels=tokens(1).cuda()).loss
    whole = model(tokens().cuda(), labels=tokens(1).cuda()).loss
    assert half is not None
    assert whole is not None
    half.backward()
    torch.testing.assert_close(half.detach(), whole.detach(), rtol=2e-2, atol=0, check_dtype=False)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
def test_int8_weights_compute_as_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    folder = t5gemma(tmp_path / "model", encoder={"hidden_size": 48, "intermediate_size": 80}, dtype=torch.bfloat16)
    found = []
    for device in ("cpu", "cuda"):
        model = pairform.load(folder, quantise="int8", device=device)
        found.append({"logits": model(**batch("t5gemma", device), decoder_input_ids=tokens().to(device) % 96).logits.float()})
    same(found[1], found[0], 5e-2)


def test_fresh_weights_are_the_same_on_every_device() -> None:
    spec = pairform.load_spec("t5gemma-s-s", {"vocabulary": 64, "encoder": {"depth": 1}, "decoder": {"depth": 1}})
    cpu, gpu = (pairform.build(spec, device=device, seed=0).state_dict() for device in ("cpu", "cuda"))
    assert all(torch.equal(cpu[name], gpu[name].cpu()) for name in cpu)


def test_sampling_draws_the_same_tokens_for_the_same_seed() -> None:
    model = pairform.build(small_pair(), device="cuda", seed=0)
    read = tokens().cuda()
    drawn = [model.generate(read, max_new_tokens=8, do_sample=True, top_k=20, top_p=0.9, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_forward_pass_and_a_step_wait_for_nothing() -> None:
    """No synchronisation: the CPU runs ahead of the GPU. `check_inputs` looks at values all the same."""
    model = pairform.build(small_pair(), device="cuda", seed=0)
    read = {"input_ids": tokens().cuda(), "attention_mask": torch.ones(2, 11, dtype=torch.long, device="cuda")}
    read["decoder_input_ids"] = tokens(1).cuda()
    model(**read)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(**read)
        loss = model(read["input_ids"], labels=read["decoder_input_ids"]).loss
        assert loss is not None
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    model.check_inputs = True
    for name, value in (("input_ids", 97), ("attention_mask", 3)):
        wrong = read | {name: read[name].clone()}
        wrong[name][1, 2] = value
        with pytest.raises(pairform.PairformError, match=name):
            model(**wrong)


def test_the_terms_of_a_loss_equal_the_cpus() -> None:
    """With ignored labels, which are left out on a CPU and masked here."""
    source, labels = tokens(), tokens(1).masked_fill(torch.arange(11) > 5, -100)
    torch.manual_seed(0)
    hidden, table = torch.randn(2, 11, 24), torch.randn(97, 24)
    found = []
    for device in ("cpu", "cuda"):
        model = pairform.build(small_pair(), device=device, seed=0)
        terms = LossTerms(0.01, Teacher(hidden.to(device), table.to(device), 5.0, 0.4, 2.0))
        output = model(source.to(device), labels=labels.to(device), loss_terms=terms)
        output.loss.backward()
        gradients = {name: each.grad.cpu() for name, each in model.named_parameters() if each.grad is not None}
        found.append((gradients, torch.stack(output.loss_parts).cpu()))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_inputs_on_another_device_are_refused() -> None:
    model = pairform.build(small_pair(), device="cuda", seed=0)
    with pytest.raises(pairform.PairformError, match="input_ids"):
        model(tokens(), decoder_input_ids=tokens(1).cuda())


def test_trials_of_a_study_run_there(tmp_path: Path) -> None:
    training = {"device": "cuda", "dtype": "bfloat16"}
    assert {trial.status for trial in run(tmp_path, {"training": training, "latency": True, "seeds": [0]})} == {"done"}
    told = result(tmp_path, "merged-seed0")
    assert told["peak_bytes"] > 0
    assert told["loss"] > 0
