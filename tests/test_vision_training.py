"""What of a model with vision is trained, and that no batch leaves a trained parameter without a gradient."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

import pairform
from pairform.assemblies.modeling.inputs import StackInputs
from tests.forked import ended, fork
from tests.small_vision import document, pixels, text, with_pictures

ASSEMBLIES = ("encoder_decoder", "decoder_only")
TOWER = "vision.tower"
BATCHES = ("text", "mixed", "no pictures at all", "embeddings")


def learn(model: pairform.Model | DistributedDataParallel, batch: str) -> Tensor:
    """The loss of a batch of one kind, after its backward pass."""
    ids, labels = text(), text()
    if batch == "embeddings":
        ran = model(inputs_embeds=torch.randn(2, 14, 32), labels=labels)
    elif batch == "mixed":
        ran = model(with_pictures(ids, (1, 4)), labels=labels, pixel_values=pixels(1))
    else:
        ran = model(ids, labels=labels, pixel_values=None if batch == "text" else pixels(0))
    loss: Tensor = ran.loss
    torch.autograd.backward(loss)
    return loss.detach()


def names(model: pairform.Model, *, trained: bool) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad == trained}


@pytest.mark.parametrize("assembly", ASSEMBLIES)
def test_a_frozen_tower_is_the_only_part_that_is_not_trained(assembly: str, tmp_path: Path) -> None:
    built = pairform.build(document(assembly), seed=0)
    pairform.save(built, tmp_path / "model")
    for model in (built, pairform.load(tmp_path / "model")):
        assert names(model, trained=False) == {name for name, _ in model.named_parameters() if TOWER in name}
        assert any("vision.projector" in name for name in names(model, trained=True))
    unfrozen = pairform.load(tmp_path / "model", patch=thawed(assembly))
    assert not names(unfrozen, trained=False)


def thawed(assembly: str) -> dict[str, object]:
    part = "decoder" if assembly == "decoder_only" else "encoder"
    return {part: {"vision": {"frozen": False}}}


@pytest.mark.parametrize("assembly", ASSEMBLIES)
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("batch", BATCHES)
def test_every_trained_parameter_gets_a_gradient(assembly: str, frozen: bool, batch: str) -> None:
    model = pairform.build(document(assembly, frozen=frozen), seed=0).train()
    learn(model, batch)
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    if batch == "embeddings":  # the table is not read then, in a model without vision either
        with_gradient |= {name for name, _ in model.named_parameters() if name.endswith("embedding.weight")} - names(
            model, trained=False
        )
    assert with_gradient == names(model, trained=True)


@pytest.mark.parametrize("assembly", ASSEMBLIES)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_mixed_batch_trains_vision_and_a_text_batch_leaves_it(assembly: str, frozen: bool) -> None:
    model = pairform.build(document(assembly, frozen=frozen), seed=0).train()
    for batch in ("text", "mixed"):
        model.zero_grad()
        learn(model, batch)
        for name, parameter in model.named_parameters():
            if "vision" in name and parameter.grad is not None and not name.endswith("k_proj.bias"):
                assert bool(parameter.grad.any()) == (batch == "mixed"), name


def test_a_text_batch_gives_the_same_numbers_with_and_without_vision() -> None:
    found = []
    for pictures in (True, False):
        torch.manual_seed(0)
        model = pairform.build(document("decoder_only", pictures=pictures, frozen=False), seed=0).train()
        numbers = {"loss": learn(model, "text")}
        for name, parameter in model.named_parameters():
            if "vision" not in name:
                assert parameter.grad is not None
                numbers[name] = parameter.grad
        found.append(numbers)
    assert found[0].keys() == found[1].keys()
    for name, number in found[0].items():
        assert torch.equal(number, found[1][name]), name


def test_a_tower_that_was_unfrozen_by_hand_is_trained() -> None:
    model = pairform.build(document(), seed=0).train().requires_grad_(True)
    learn(model, "mixed")
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("assembly", ASSEMBLIES)
@pytest.mark.parametrize("frozen", [True, False])
def test_experts_in_a_tower_add_to_the_loss_if_it_is_trained(assembly: str, frozen: bool) -> None:
    seeing = document(assembly, frozen=frozen)
    vision = seeing["decoder" if assembly == "decoder_only" else "encoder"]["vision"]
    expert = {"name": "mlp", "hidden": 8}
    vision["tower"]["layer"]["branches"]["feed_forward"] = {"name": "mixture", "experts": 3, "expert": expert, "balance": 0.5}
    model = pairform.build(seeing, seed=0).train()
    ids, pictures = with_pictures(text(), (0, 2)), pixels(1)
    ran, read = model(ids, labels=ids, pixel_values=pictures), text()
    alone = model.get_submodule("decoder.vision.tower" if assembly == "decoder_only" else "encoder.vision.tower")(
        StackInputs(pictures)
    )
    assert alone.auxiliary_loss > 0
    if frozen:
        assert ran.auxiliary_loss is None
    else:
        torch.testing.assert_close(ran.auxiliary_loss, alone.auxiliary_loss)
        torch.testing.assert_close(ran.loss, model.eval()(ids, labels=ids, pixel_values=pictures).loss + ran.auxiliary_loss)
    assert model.train()(read, labels=read).auxiliary_loss is None, "no picture, no loss of what reads them"


def test_a_frozen_towers_pictures_may_be_differentiated() -> None:
    model = pairform.build(document("decoder_only"), seed=0)
    pictures = pixels(1).requires_grad_()
    ids = with_pictures(text(), (0, 2))
    torch.autograd.backward(model(ids, labels=ids, pixel_values=pictures).loss)
    assert pictures.grad is not None
    assert pictures.grad.any()


BATCHES_OF_BOTH = [["text", "text"], ["mixed", "text"], ["text", "mixed"]]


def train_as_one_of_two(rank: int, folder: Path) -> None:
    """Three steps in which this process sees pictures at another time than its neighbour; writes the weights."""
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.manual_seed(rank)
    model = pairform.build(document("decoder_only", frozen=False) | {"initializer_range": 0.1}, seed=0).train()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for batch in BATCHES_OF_BOTH:
        optimizer.zero_grad()
        learn(parallel, batch[rank])
        optimizer.step()
    torch.save({name: parameter.detach() for name, parameter in model.named_parameters()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.skipif(not distributed.is_available(), reason="torch without torch.distributed")
def test_data_parallel_training_on_text_and_pictures_keeps_both_processes_alike(tmp_path: Path) -> None:
    processes = [fork(train_as_one_of_two, rank, tmp_path) for rank in range(2)]
    assert [ended(process) for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    before = dict(pairform.build(document("decoder_only") | {"initializer_range": 0.1}, seed=0).named_parameters())
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name]), name
        assert not torch.equal(parameter, before[name]) or name.endswith("k_proj.bias"), name
