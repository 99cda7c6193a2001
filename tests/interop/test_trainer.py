"""transformers' Trainer trains models of the bridge."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import pairform
import pairform.interop.transformers as bridge
from tests.forked import PATIENCE, fork, free_port
from tests.small_pairs import small_pair

pytest.importorskip("accelerate", reason="Trainer needs accelerate")
Rows = list[dict[str, list[int]]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pairform.save(pairform.build(small_pair(), seed=0), tmp_path / "pair")
    return tmp_path / "pair"


def rows(count: int, vocabulary: int) -> Rows:
    """Texts that all have 7 tokens, with targets of 5, so that they need no padding."""
    drawn = torch.randint(3, vocabulary, (count, 12), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row[:7].tolist(), "labels": row[7:].tolist()} for row in drawn]


def trainer(folder: Path, out: Path, **options: Any) -> transformers.Seq2SeqTrainer:
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    data = rows(16, model.config.vocab_size)
    settings = {
        "max_steps": 4,
        "save_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "predict_with_generate": True,
        "generation_max_length": 6,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        **options,
    }

    def batch(some: Rows) -> dict[str, Tensor]:
        made = {name: torch.tensor([row[name] for row in some]) for name in ("input_ids", "labels")}
        return made | {"decoder_input_ids": model.prepare_decoder_input_ids_from_labels(made["labels"])}

    arguments = transformers.Seq2SeqTrainingArguments(output_dir=str(out), **settings)
    return transformers.Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data[:3], data_collator=batch
    )


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("options", [{}, {"label_smoothing_factor": 0.1}, {"gradient_checkpointing": True}], ids=str)
def test_a_resumed_run_ends_as_an_uninterrupted_one(options: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    whole = trainer(folder, tmp_path / "out", **options)
    whole.train()
    before, after = pairform.load(folder).state_dict(), weights(whole.model)
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    resumed = trainer(folder, tmp_path / "out", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(resumed.model).items())
    # a checkpoint is a folder that pairform loads
    again = pairform.load(tmp_path / "out" / "checkpoint-4").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in after.items())


def test_gradient_checkpointing_changes_no_loss(folder: Path, tmp_path: Path) -> None:
    losses = []
    for wanted in (False, True):
        run = trainer(folder, tmp_path / str(wanted), gradient_checkpointing=wanted)
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
        assert run.model.is_gradient_checkpointing == wanted
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_accumulated_gradients_are_those_of_the_whole_batch(folder: Path, tmp_path: Path) -> None:
    """The loss is divided by the number of labels of the whole batch, which Trainer counts."""
    ends = []
    for rows_at_once, times in ((4, 1), (1, 4)):
        run = trainer(
            folder,
            tmp_path / str(times),
            per_device_train_batch_size=rows_at_once,
            gradient_accumulation_steps=times,
            max_steps=1,
        )
        run.train()
        ends.append(weights(run.model))
    for name, tensor in ends[0].items():
        torch.testing.assert_close(ends[1][name], tensor, rtol=1e-4, atol=1e-5)


def test_two_processes_train_as_one(folder: Path, tmp_path: Path) -> None:
    """Distributed data parallel over gloo: each process has half of the rows of a step."""
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        fork(train_distributed, folder, tmp_path / "two", RANK=str(rank), LOCAL_RANK=str(rank), **together) for rank in (0, 1)
    ]
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    one = trainer(folder, tmp_path / "one", per_device_train_batch_size=4, **PLAIN)
    one.train()
    two = pairform.load(tmp_path / "two" / "checkpoint-4").state_dict()
    for name, tensor in weights(one.model).items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-5, atol=1e-6)


PLAIN: dict[str, Any] = {"optim": "sgd", "max_grad_norm": 0.0}
"""Adam would enlarge rounding in gradients near zero."""


def train_distributed(folder: Path, out: Path) -> None:
    trainer(folder, out, ddp_backend="gloo", per_device_train_batch_size=2, **PLAIN).train()
    torch.distributed.destroy_process_group()


def test_predictions_are_generated(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out")
    found = run.predict(run.eval_dataset)
    sources = torch.tensor([row["input_ids"] for row in rows(3, run.model.config.vocab_size)])
    expected = pairform.load(folder).generate(sources, max_new_tokens=5)
    assert torch.tensor(found.predictions)[:, : expected.shape[1]].equal(expected)
    assert found.metrics["test_loss"] > 0


def test_another_class_is_refused(folder: Path) -> None:
    with pytest.raises(pairform.PairformError, match="PairformForConditionalGeneration"):
        bridge.PairformForCausalLM.from_pretrained(folder)
