"""TRL's supervised fine-tuning trains decoder-only models of the bridge."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pairform
import pairform.interop.transformers  # registers the classes
from tests.catalogue.places import model
from tests.interop.words import tokenizer

trl = pytest.importorskip("trl", reason="needs trl")
datasets = pytest.importorskip("datasets", reason="needs datasets")
SPECS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grouped queries": (
        {"name": "self_attention", "heads": 4, "kv_heads": 2, "position": {"name": "rope"}, "mask": {"causal": True}},
        {"name": "lm", "bias": "learned"},
    ),
    "latent": (
        {"name": "latent_attention", "heads": 4, "latent": 8, "rope_dim": 4, "mask": {"causal": True}},
        {"name": "lm", "tie": "decoder"},
    ),
    "retention": (
        {"name": "retention", "heads": 4, "mask": {"causal": True}},
        {"name": "lm", "tie": "decoder", "scale": "inverse_sqrt_width", "softcap": 2.0},
    ),
}
"""Attention and head."""
ROWS = [
    {"prompt": "the cat :", "completion": " the cat sleeps"},
    {"prompt": "a dog : a", "completion": " dog runs and the bird sings"},
]


def trainer(folder: Path, attention: dict[str, Any], head: dict[str, Any]) -> Any:
    document = model("decoder_only") | {"head": head}
    document["decoder"]["layer"]["branches"] |= {"self_attention": attention}
    pairform.save(pairform.build(pairform.load_spec(document), seed=0), folder / "model")
    settings = trl.SFTConfig(
        output_dir=str(folder / "out"),
        max_steps=12,
        per_device_train_batch_size=len(ROWS),
        learning_rate=0.02,
        lr_scheduler_type="constant",
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        save_strategy="no",
    )
    causal = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    data = datasets.Dataset.from_list(ROWS)
    return trl.SFTTrainer(model=causal, args=settings, train_dataset=data, processing_class=tokenizer())


@pytest.mark.parametrize("name", SPECS)
def test_supervised_fine_tuning(name: str, tmp_path: Path) -> None:
    run = trainer(tmp_path, *SPECS[name])
    batch = run.data_collator(list(run.train_dataset))
    with torch.no_grad():
        own = pairform.load(tmp_path / "model")(batch["input_ids"], batch["attention_mask"], labels=batch["labels"]).loss
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert own is not None
    assert losses[0] == pytest.approx(own.item(), rel=1e-5)  # TRL computes the loss itself
    assert losses[-1] < losses[0] / 2
    run.save_model(str(tmp_path / "tuned"))
    again = pairform.load(tmp_path / "tuned")
    ids = torch.tensor([[3, 4, 13]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, run.model.eval()(ids).logits)


def test_a_loss_that_trl_would_compute_wrongly_is_refused(tmp_path: Path) -> None:
    attention, head = SPECS["grouped queries"]
    run = trainer(tmp_path, attention, head | {"transform": {"bias": True}})
    with pytest.raises(pairform.PairformError, match=r"found a dense layer"):
        run.train()
