"""`adapt plan`: estimates from the recipe and the model's configuration, against what a step really takes."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

import pairform
from pairform.assemblies.analysis.activations import measure_activations
from pairform.blocks.functional import processor
from pairform.registry import CheckpointError, InputError, SpecError
from pairform.training.adaptation.planning import RunPlan, plan_run
from pairform.training.costs.accelerators import accelerator_of, peak_flops
from pairform.training.costs.memory import Setting, memory_of
from pairform.training.optimization.optimizers import make_optimizer
from pairform.training.settings import OptimizerSpec
from tests.adaptation.small_run import RECIPE, write_run
from tests.checkpoints import gemma2
from tests.command_line.runner import CommandLine

SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "small": (64, 3, 2, 48, 32),
    "wide": (128, 4, 4, 96, 64),
    "long": (64, 2, 1, 320, 288),
    "many": (128, 2, 4, 160, 144),  # more values than a norm on a CPU takes at once
}
"""Width, layers, rows, source and target tokens."""
PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "mixed": (torch.float32, True),
}


@pytest.fixture(autouse=True)
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products through float32, on some CPUs, keep other tensors."""
    monkeypatch.setattr(processor, "of_cpu", lambda dtype: None)


def spec_of(width: int, depth: int) -> pairform.ModelSpec:
    attention = {"heads": 4, "kv_heads": 2, "head_dim": width // 4}
    branches = {"self_attention": attention, "feed_forward": {"hidden": 4 * width}}
    part: dict[str, Any] = {"width": width, "depth": depth, "layer": {"branches": branches}}
    decoder = part | {"layer": {"branches": branches | {"cross_attention": attention}}}
    # more logits than the loss keeps for the backward pass
    return pairform.load_spec({"extends": "t5gemma-s-s", "vocabulary": 1100, "encoder": part, "decoder": decoder})


class Step:
    """The forward and backward passes of one micro-batch on this machine."""

    def __init__(self, size: str, precision: str, checkpointed: Any) -> None:
        width, depth, rows, source, target = SIZES[size]
        dtype, self.autocast = PRECISIONS[precision]
        self.spec = spec_of(width, depth)
        self.model = pairform.build(self.spec, seed=0, dtype=dtype).train()
        self.model.checkpoint_layers(checkpointed)
        ids, labels = (torch.full((rows, length), 7) for length in (source, target))
        tokens = torch.tensor(rows * target)
        self.inputs = {"input_ids": ids, "attention_mask": ids > 0, "labels": labels, "loss_tokens": tokens}
        self.setting = Setting(
            precision,  # type: ignore[arg-type]
            OptimizerSpec(),
            rows,
            [(source, target)],
            checkpointed=checkpointed,
            cuda=False,
        )

    def forward(self) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            return self.model(**self.inputs).loss

    def kept(self) -> int:
        """Bytes that autograd saves, besides parameters."""
        own = {each.untyped_storage()._cdata for each in (*self.model.parameters(), *self.model.buffers())}
        seen: dict[int, torch.Tensor] = {}

        def save(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with saved_tensors_hooks(save, lambda tensor: tensor):
            self.forward()
        return sum(tensor.untyped_storage().nbytes() for key, tensor in seen.items() if key not in own)

    def peak(self) -> int:
        """Most bytes allocated at a time, besides weights and their gradients."""
        torch.autograd.backward(self.forward())
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            torch.autograd.backward(self.forward())
        results: Any = recorded.profiler
        events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
        total = most = 0
        for _, change in sorted((event.start_ns(), event.nbytes()) for event in events):
            total += change
            most = max(most, total)
        return most


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", SIZES)
def test_activations_are_the_tensors_that_autograd_saves(size: str, precision: str) -> None:
    _, _, rows, source, target = SIZES[size]
    for checkpointed in ("none", "all"):
        step = Step(size, precision, checkpointed)
        options: Any = {"rows": rows, "source_length": source, "target_length": target, "arithmetic": precision}
        assert measure_activations(step.spec, **options).kept(checkpointed) == step.kept()


@pytest.mark.parametrize(
    ("size", "precision", "checkpointed"),
    [
        ("small", "float32", "none"),
        ("wide", "float32", "all"),
        ("wide", "bfloat16", "none"),
        ("wide", "mixed", "none"),
        ("wide", "mixed", "all"),
        ("long", "float32", "none"),
        ("many", "float32", "none"),
        ("many", "bfloat16", "all"),
        ("wide", "bfloat16", 2),
    ],
)
def test_the_peak_of_a_step_is_within_a_sixth_of_the_estimate(size: str, precision: str, checkpointed: Any) -> None:
    step = Step(size, precision, checkpointed)
    found = memory_of(step.spec, step.setting)
    assert (found.activations + found.working) / step.peak() == pytest.approx(1, abs=1 / 6)


def test_norms_keep_their_input_and_a_number_for_each_token_where_they_are_fused() -> None:
    width, depth, rows, source, target = SIZES["wide"]
    options: Any = {"rows": rows, "source_length": source, "target_length": target}
    whole, fused = (measure_activations(spec_of(width, depth), **options, fused=fused) for fused in (False, True))
    normed = rows * source * width * torch.float32.itemsize
    for before, after in zip(whole.layers["encoder"], fused.layers["encoder"], strict=True):
        assert before.kept - after.kept >= 4 * normed


def test_frozen_layers_keep_no_activations() -> None:
    spec = spec_of(64, 3)
    options: Any = {"rows": 2, "source_length": 48, "target_length": 32}
    whole, frozen = (measure_activations(spec, **options, frozen=patterns) for patterns in ((), ("encoder.*",)))
    assert all(layer.kept for layer in whole.layers["encoder"])
    assert not any(layer.kept for layer in frozen.layers["encoder"])
    partly = measure_activations(spec, **options, frozen=("encoder.embedding.*", "encoder.layers.[01].*"))
    assert [bool(layer.kept) for layer in partly.layers["encoder"]] == [False, False, True]
    assert all(layer.kept for layer in frozen.layers["decoder"])


def planned(folder: Path, patch: Mapping[str, Any] | None = None, **options: Any) -> RunPlan:
    return plan_run(write_run(folder, dict(patch or {})), **options)


@pytest.mark.parametrize(
    "optimizer", [{"name": "adamw"}, {"name": "muon"}, {"name": "sgd"}, {"name": "sgd", "momentum": 0.9}], ids=str
)
def test_weights_gradients_and_states_take_the_estimated_bytes(optimizer: dict[str, Any], tmp_path: Path) -> None:
    found = planned(tmp_path, {"optimizer": optimizer, "frozen": ["*norm*"]})
    model = pairform.build(tmp_path / "spec.json", seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" not in name)
    optimizers = make_optimizer(model, OptimizerSpec.read(optimizer))
    ids = torch.full((1, 8), 7)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizers.step()
    parameters = [*model.parameters()]
    states = [
        value for each in optimizers.each for state in each.state.values() for value in state.values() if torch.is_tensor(value)
    ]
    assert found.memory.parameters == sum(each.nbytes for each in parameters)
    assert found.memory.gradients == sum(each.grad.nbytes for each in parameters if each.grad is not None)
    assert found.memory.optimizer == sum(each.nbytes for each in states if each.ndim)
    assert found.checkpoint_bytes == found.memory.parameters + found.memory.optimizer


def test_processes_share_what_is_sharded(tmp_path: Path) -> None:
    one, two = (planned(tmp_path, {"average": {"ema": 0.9}}, processes=number) for number in (1, 2))
    copies = planned(tmp_path, {"parallel": {"replicate": 2}})
    for name in ("parameters", "gradients", "optimizer", "average"):
        assert getattr(two.memory, name) == getattr(one.memory, name) // 2
        assert name == "average" or getattr(copies.memory, name) == getattr(one.memory, name)
    assert (one.memory.gathered, copies.processes, two.rows["process"]) == (0, 2, 4)
    assert two.memory.gathered == sum(two.gathered.values()) > 0
    assert two.flops == one.flops


def test_phases_tokens_and_checkpoints_are_counted(tmp_path: Path) -> None:
    patch = {
        "phases": [{"steps": 2, "train": ["*cross_attention*"]}],
        "frozen": ["*norm*"],
        "activation_checkpointing": "all",
        "steps": 60,
        "checkpoint": {"every": 2, "keep": 3, "keep_every": 5},
    }
    found = planned(tmp_path, patch, peak_tflops=1e-6, mfu=0.5)
    names = {name: parameter.numel() for name, parameter in pairform.build(tmp_path / "spec.json").named_parameters()}
    trained = {name: size for name, size in names.items() if "norm" not in name}
    cross = sum(size for name, size in trained.items() if "cross_attention" in name)
    assert found.phases == ({"steps": 2, "trained": cross}, {"steps": 58, "trained": sum(trained.values())})
    assert found.parameters["total"] == sum(names.values())
    forward = pairform.inspect(tmp_path / "spec.json", batch=8, source_length=16, target_length=16).flops["total"]
    assert found.flops["step"] == pytest.approx(3 * forward)
    assert found.flops["recomputed"] < forward < 1.5 * found.flops["recomputed"]
    assert found.days == pytest.approx(60 * 3 * forward / 5e5 / 86_400)
    assert found.checkpoints == 3 + 1 + 6
    assert found.epochs is not None
    shutil.rmtree(tmp_path / "shards")
    assert plan_run(tmp_path / "recipe.json").epochs is None


def test_a_teacher_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights, without gradients, and its forward pass."""
    alone = planned(tmp_path, {}, processes=2, peak_tflops=1.0)
    pairform.save(pairform.build(tmp_path / "spec.json", seed=4), tmp_path / "teacher")
    recipe = json.loads((tmp_path / "recipe.json").read_text()) | {"distillation": {"teacher": str(tmp_path / "teacher")}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    found = plan_run(tmp_path / "recipe.json", processes=2, peak_tflops=1.0)
    extra = found.memory.total - alone.memory.total
    assert alone.memory.parameters < extra < 4 * alone.memory.parameters  # half of it, and what is gathered
    assert found.flops["teacher"] == pytest.approx(found.flops["step"] / 3)
    assert found.days == pytest.approx(4 / 3 * (alone.days or 0))
    shown = CommandLine(monkeypatch, capsys)("adapt", "plan", tmp_path / "recipe.json").out
    assert "of the teacher" in shown
    recipe["distillation"]["teacher"] = str(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no such folder"):
        plan_run(recipe)


def test_a_conversion_is_planned_from_configurations_alone(tmp_path: Path) -> None:
    recipe = write_run(tmp_path)
    gemma2(tmp_path / "encoder", hidden_size=48, num_hidden_layers=6)
    gemma2(tmp_path / "decoder")
    sources = {part: str(tmp_path / part) for part in ("encoder", "decoder")}
    made = pairform.plan(encoder=sources["encoder"], decoder=sources["decoder"]).spec
    for folder in sources.values():
        for file in Path(folder).glob("*.safetensors"):
            file.unlink()
    document = json.loads(recipe.read_text()) | {"model": {"convert": sources}}
    assert plan_run(document).parameters == pairform.inspect(made).parameters


def test_only_the_configuration_of_a_hub_model_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    recipe = write_run(tmp_path, {})
    asked: list[Any] = []

    def downloaded(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", downloaded)
    plan_run(json.loads(recipe.read_text()) | {"model": "google/gemma-2-2b"})
    assert [repository for repository, _ in asked] == ["google/gemma-2-2b"]
    assert not any("tokenizer" in name or name.endswith(".safetensors") for name in asked[0][1])


@pytest.mark.parametrize(
    ("patch", "options", "said"),
    [
        ({}, {"processes": 3}, "8 rows for 3 processes"),
        ({"batch": {"tokens": 8}}, {}, "at least one row"),
        ({"frozen": ["nothing"]}, {}, "frozen.0."),
        ({"data": RECIPE["data"] | {"objective": {"name": "causal_lm"}}}, {}, "decoder_only"),
        ({}, {"accelerator": "h10"}, "Did you mean 'h100'"),
        ({}, {"mfu": 40}, "at most 1"),
    ],
)
def test_what_cannot_run_is_not_planned(patch: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((SpecError, InputError), match=said):
        planned(tmp_path, patch, **options)


def test_the_command_prints_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = CommandLine(monkeypatch, capsys)
    recipe = str(write_run(tmp_path))
    printed = run("adapt", "plan", recipe, "--processes", "2", "--accelerator", "a100").out
    for shown in ("memory of each process", "gathered", "of 19.5 TFLOP/s", "epochs", "GPU-days"):
        assert shown in printed
    found = json.loads(run("adapt", "plan", recipe, "--json", "--set", "batch.micro=4").out)
    assert found["rows"] == {"batch": 8, "process": 8, "micro": 4, "passes": 2}
    assert found["memory"]["total"] == sum(size for name, size in found["memory"].items() if name != "total")
    assert "give --accelerator or --peak" in run("adapt", "plan", recipe).out or torch.cuda.is_available()


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", None),
    ],
)
def test_devices_are_known_by_their_drivers_names(device: str, name: str | None) -> None:
    assert accelerator_of(device) == name
    if name is not None:
        assert peak_flops(name, "mixed") > peak_flops(name, "float32")
