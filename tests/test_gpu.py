"""On a GPU: the same numbers as on the CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.checkpoints import t5gemma

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return t5gemma(tmp_path / "model", decoder={"hidden_size": 48, "num_hidden_layers": 3})


def batch(device: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 96, (2, 13), generator=generator)
    ids[0, 9:] = 0
    return {"input_ids": ids.to(device), "attention_mask": (ids != 0).to(device)}


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad.cpu()


def test_logits_and_gradients_equal_the_cpus(folder: Path) -> None:
    answers = []
    for device in ("cpu", "cuda"):
        model = pairform.load(folder, device=device)
        output = model(**batch(device), labels=batch(device)["input_ids"].masked_fill(batch(device)["input_ids"] == 0, -100))
        assert output.loss is not None
        assert output.logits is not None
        output.loss.backward()
        answers.append(
            (output.logits.detach().cpu(), {name: gradient(parameter) for name, parameter in model.named_parameters()})
        )
    torch.testing.assert_close(answers[1][0], answers[0][0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(answers[1][1], answers[0][1], rtol=1e-2, atol=1e-2)


def test_generation_equals_the_cpus(folder: Path) -> None:
    written = [
        pairform.load(folder, device=device).generate(**batch(device), max_new_tokens=16).cpu() for device in ("cpu", "cuda")
    ]
    assert torch.equal(written[0], written[1])


def test_fresh_weights_are_the_same_on_every_device() -> None:
    spec = pairform.load_spec("t5gemma-s-s", {"vocabulary": 64, "encoder": {"depth": 1}, "decoder": {"depth": 1}})
    cpu, gpu = (pairform.build(spec, device=device, seed=0).state_dict() for device in ("cpu", "cuda"))
    assert all(torch.equal(cpu[name], gpu[name].cpu()) for name in cpu)
