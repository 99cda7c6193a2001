"""One dtype a model: files and pairs of several, and what float16 leaves in float32."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pairform

T5 = {
    part: {"width": 32, "depth": 2, "layer": {"branches": {"feed_forward": {"hidden": 48}}}} for part in ("encoder", "decoder")
}
SOURCE = torch.tensor([[5, 6, 7, 8]])


def t5() -> Any:
    return pairform.build(pairform.load_spec("t5-small", {"vocabulary": 96, **T5}), seed=0)


def test_float16_leaves_the_last_projections_of_t5_in_float32_and_stays_finite(tmp_path: Path) -> None:
    model = t5()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "feed_forward.block" in name:
                parameter.mul_(3000)
    pairform.save(model, tmp_path / "wide")
    half = pairform.load(tmp_path / "wide", dtype=torch.float16)
    kept = {name for name, parameter in half.named_parameters() if parameter.dtype == torch.float32}
    assert kept == {name for name, _ in half.named_parameters() if name.endswith("down_proj.weight")}
    logits = half(SOURCE, decoder_input_ids=SOURCE).logits
    assert logits.dtype == torch.float16
    assert bool(logits.isfinite().all())
    pairform.save(half, tmp_path / "half")
    again = pairform.load(tmp_path / "half")(SOURCE, decoder_input_ids=SOURCE).logits
    assert torch.equal(again, logits)


def test_a_file_of_two_dtypes_is_run_in_one(tmp_path: Path) -> None:
    pairform.save(t5(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    stored = {name: tensor if "embedding" in name else tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(stored, file)
    model = pairform.load(tmp_path / "model")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(SOURCE, decoder_input_ids=SOURCE).logits.shape == (1, 4, 96)


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_t5_without_shared_has_its_table_under_a_stacks_name(tmp_path: Path, name: str) -> None:
    pairform.save(t5(), tmp_path / "model", format="transformers")
    file = tmp_path / "model" / "model.safetensors"
    stored = load_file(file)
    stored[name] = stored.pop("shared.weight")
    save_file(stored, file, metadata={"format": "pt"})
    assert torch.equal(pairform.load(tmp_path / "model").get_parameter("encoder.embedding.weight"), stored[name])


def test_a_patch_takes_the_head_off_a_folder_that_has_none(tmp_path: Path) -> None:
    pairform.save(
        pairform.build(pairform.load_spec("t5-small", {"vocabulary": 96, **T5, "head": {"name": "none"}}), seed=0), tmp_path
    )
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"head": {"name": "lm"}}))
    with pytest.raises(pairform.PairformError, match=r"head.weight: found no such tensor.*patch="):
        pairform.load(tmp_path)
    assert pairform.load(tmp_path, patch={"head": {"name": "none"}}).spec.head.name == "none"


def test_the_gated_residual_runs_under_autocast() -> None:
    layer = {"layer": {"residual": {"name": "gated"}}}
    model = pairform.build(pairform.patch(t5().spec, {"decoder": layer}), seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(SOURCE, labels=SOURCE).loss
    assert loss is not None
    assert bool(loss.isfinite())
