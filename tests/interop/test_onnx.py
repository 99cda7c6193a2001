"""ONNX files in onnxruntime, through the names that optimum and transformers.js use."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import pairform
from tests.small_pairs import SIZES, small_pair, tokens

T5: dict[str, Any] = {"heads": 4, "head_dim": 8}


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def inputs(program: Any) -> list[str]:
    return [each.name for each in program.get_inputs()]


def small_t5() -> pairform.ModelSpec:
    stacks: dict[str, Any] = {}
    for part, attentions in (("encoder", ["self_attention"]), ("decoder", ["self_attention", "cross_attention"])):
        branches: dict[str, Any] = dict.fromkeys(attentions, T5) | {"feed_forward": {"hidden": 48}}
        stacks[part] = {"width": 32, "depth": 1, "layer": {"branches": branches}}
    return pairform.patch(pairform.load_spec("t5-small"), {"vocabulary": 97, "initializer_range": 0.3} | stacks)


def small_gemma() -> pairform.ModelSpec:
    branches = {"self_attention": SIZES, "feed_forward": {"hidden": 48}}
    cycle = [{"branches": {"self_attention": {"mask": {"window": [4, 0]}}}}, {}]
    stack = {"width": 32, "depth": 2, "layer": {"branches": branches}, "cycle": cycle}
    return pairform.patch(pairform.load_spec("gemma-2-2b"), {"vocabulary": 97, "initializer_range": 0.3, "decoder": stack})


def exported(spec: pairform.ModelSpec, folder: Path) -> tuple[pairform.Model, Path]:
    model = pairform.build(spec, seed=0).eval()
    pairform.save(model, folder / "source")
    told: list[str] = []
    pairform.export(folder / "source", folder / "out", format="onnx", tell=told.append)
    assert any("onnxruntime" in line for line in told)  # five sizes, and greedy tokens
    return model, folder / "out"


@pytest.mark.parametrize("spec", [small_pair("t5gemma2-270m-270m"), small_t5()], ids=["merged", "t5"])
@torch.no_grad()
def test_three_files_of_a_pair(spec: pairform.ModelSpec, tmp_path: Path) -> None:
    """Merged attention within and beyond windows, and T5's score biases; sources are padded."""
    model, out = exported(spec, tmp_path)
    encoder, first, later = (session(out / "onnx" / f"{name}.onnx") for name in FILES)
    assert inputs(encoder) == ["input_ids", "attention_mask"]
    assert inputs(first) == ["encoder_attention_mask", "input_ids", "encoder_hidden_states"]
    keys = [f"past_key_values.{{}}.{kind}.{part}" for kind in ("decoder", "encoder") for part in ("key", "value")]
    layers = range(len(spec.last.layers))
    assert {*inputs(later)} == {"encoder_attention_mask", "input_ids", *(key.format(n) for key in keys for n in layers)}
    ids = tokens(length=13)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    hidden = encoder.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    given = {"encoder_attention_mask": mask.numpy()}
    read = np.full((2, 1), spec.tokens.first)
    outputs = first.run(None, {**given, "input_ids": read, "encoder_hidden_states": hidden})
    names = [each.name for each in first.get_outputs()]
    found = [read]
    past: dict[str, Any] = {}
    for _ in range(9):
        past |= {name.replace("present", "past_key_values"): value for name, value in zip(names[1:], outputs[1:], strict=True)}
        found.append(outputs[0][:, -1:].argmax(-1))
        outputs = later.run(None, {**given, **past, "input_ids": found[-1]})
        names = [each.name for each in later.get_outputs()]
    expected = model.generate(ids, mask, max_new_tokens=9, eos_token_id=())
    assert np.array_equal(np.concatenate(found, 1), expected.numpy())
    assert {path.name for path in out.iterdir()} == {"onnx", "config.json", "generation_config.json", "provenance.json"}


FILES = ("encoder_model", "decoder_model", "decoder_with_past_model")


@torch.no_grad()
def test_one_file_of_a_decoder(tmp_path: Path) -> None:
    """Its first call has keys of no tokens; rows are padded on the left."""
    model, out = exported(small_gemma(), tmp_path)
    program = session(out / "onnx" / "model.onnx")
    assert inputs(program)[:4] == ["input_ids", "attention_mask", "position_ids", "past_key_values.0.key"]
    ids, mask = tokens(length=9), torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    empty = {name: np.zeros((2, 2, 0, 8), np.float32) for name in inputs(program)[3:]}
    places = (mask.cumsum(1) - 1).clamp(min=0)
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "position_ids": places.numpy()}
    logits = torch.from_numpy(program.run(None, given | empty)[0])
    expected = model(ids, mask).logits
    assert expected is not None
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"layer": {"branches": {"self_attention": {"mask": {"prefix": True}}}}, "cycle": []}, "a mask with a prefix"),
        ({"layer": {"branches": {"cross_attention": {"source_layer": 0}}}}, "single layers of the encoder"),
        (
            {"layer": {"branches": {"self_attention": {"position": {"scaling": {"name": "dynamic", "factor": 2.0}}}}}},
            "does not depend on the length",
        ),
    ],
)
def test_what_the_files_cannot_express_is_refused(decoder: dict[str, Any], message: str, tmp_path: Path) -> None:
    pairform.save(pairform.build(small_pair(decoder=decoder), seed=0), tmp_path / "source")
    with pytest.raises(pairform.PairformError, match=message):
        pairform.export(tmp_path / "source", tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()


def test_an_option_of_another_format_is_refused(tmp_path: Path) -> None:
    pairform.save(pairform.build(small_pair(), seed=0), tmp_path / "source")
    with pytest.raises(pairform.PairformError, match="quantization: found an option that the format onnx does not have"):
        pairform.export(tmp_path / "source", tmp_path / "out", format="onnx", quantization="int8")
