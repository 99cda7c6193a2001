"""ModernBERT, its decoder and EuroBERT as transformers computes them, there and back."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from tests.broken.damage import edit_json, refused
from tests.families.any_family import SEEDS, Case, check_family, result, written
from tests.made_once import made_once
from tests.parity.compare import batch, error, reference
from tests.parity.pictures import same_bytes

CLASSES = {"modernbert": "ModernBert", "modernbert-decoder": "ModernBertDecoder", "eurobert": "EuroBert"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
MODERN: dict[str, Any] = {"local_attention": 8, "classifier_bias": True}
KINDS = ("sliding_attention", "full_attention")


@made_once
def create(folder: Path, /, family: str, kind: str, *, seed: int = 0, **changes: Any) -> Path:
    """A small folder of transformers' own writing."""
    own = {"num_key_value_heads": 2} if family == "eurobert" else MODERN
    return written(folder, Case(CLASSES[family], {**SMALL, **own, **changes}, kind), seed)


def random_config(family: str, seed: int) -> dict[str, Any]:
    """Any pattern of layers, windows, biases, positions scaled or not, tied or own heads."""
    rng = random.Random(seed)
    heads, depth = rng.choice([2, 4, 6]), rng.randint(1, 5)
    theta = rng.choice([100.0, 10_000.0])
    scaling: dict[str, Any] = rng.choice([{"rope_type": "default"}, {"rope_type": "linear", "factor": 4.0}])
    config: dict[str, Any] = {
        "hidden_size": heads * rng.choice([4, 8]),
        "intermediate_size": rng.choice([24, 40]),
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "tie_word_embeddings": rng.random() < 0.5,
        "attention_bias": rng.random() < 0.5,
        "mlp_bias": rng.random() < 0.5,
    }
    if family == "eurobert":
        config |= {
            "num_key_value_heads": rng.choice([count for count in range(1, heads + 1) if heads % count == 0]),
            "hidden_act": rng.choice(["silu", "gelu"]),
            "rms_norm_eps": rng.choice([1e-6, 1e-3]),
            "rope_parameters": {"rope_theta": theta} | scaling,
        }
        return config
    rope = {
        "full_attention": {"rope_theta": theta} | scaling,
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    }
    return config | {
        "hidden_activation": rng.choice(["gelu", "silu"]),
        "norm_eps": rng.choice([1e-5, 1e-3]),
        "norm_bias": rng.random() < 0.5,
        "decoder_bias": rng.random() < 0.7,
        "classifier_bias": rng.random() < 0.5,
        "local_attention": rng.choice([4, 6, 9]),
        "layer_types": rng.choice([None, [rng.choice(KINDS) for _ in range(depth)]]),
        "rope_parameters": rng.choice([None, rope]),
        "global_attn_every_n_layers": rng.choice([2, 3]),
    }


HEADS = {
    "modernbert": ("ForMaskedLM", "Model", "ForSequenceClassification", "ForTokenClassification"),
    "modernbert-decoder": ("ForCausalLM", "Model", "ForSequenceClassification"),
    "eurobert": ("ForMaskedLM", "Model", "ForSequenceClassification", "ForTokenClassification"),
}


def check(family: str, kind: str, seed: int, tmp_path: Path, **changes: Any) -> None:
    def folder(path: Path, seed: int) -> Path:
        return create(path, family, kind, seed=seed, **changes)

    check_family(folder, seed, tmp_path, kind="decoder" if family == "modernbert-decoder" else "encoder")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", CLASSES)
def test_random_models(family: str, seed: int, tmp_path: Path) -> None:
    check(family, HEADS[family][0], seed, tmp_path, **random_config(family, seed))


@pytest.mark.parametrize(("family", "kind"), [(family, kind) for family, kinds in HEADS.items() for kind in kinds[1:]])
def test_other_heads(family: str, kind: str, tmp_path: Path) -> None:
    check(family, kind, 2, tmp_path, num_labels=3)


@pytest.mark.parametrize(("family", "pooling"), [("modernbert", "mean"), ("eurobert", "mean"), ("eurobert", "bos")])
def test_pooling(family: str, pooling: str, tmp_path: Path) -> None:
    check(family, "ForSequenceClassification", 2, tmp_path, classifier_pooling=pooling)


@torch.no_grad()
def test_a_span_head(tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "modernbert", "ForQuestionAnswering", classifier_bias=True, classifier_dropout=0.1)
    ours, read = pairform.load(folder), batch(padding="right")
    expected = reference(folder)(**read.inputs)
    logits = torch.stack((expected.start_logits, expected.end_logits), -1)
    assert error(ours(**read.inputs).logits, logits, read.real) <= 1e-5
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    assert pairform.load_spec(tmp_path / "back") == ours.spec


@torch.no_grad()
def test_unpadded_rows_give_the_same(tmp_path: Path) -> None:
    """Rows packed into one without padding, as ModernBERT runs with flash attention, beside padded ones."""
    folder = create(tmp_path / "model", "modernbert", "Model")
    read, ours = batch(padding="right"), pairform.load(folder)
    padded = result(reference(folder)(**read.inputs))
    lengths = read.mask.sum(1).tolist()
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    packed = result(ours(input_ids=read.ids[read.real][None], segment_ids=segments))
    assert error(packed[0], padded[read.real]) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize(("encoder", "decoder"), [("modernbert", "modernbert-decoder"), ("eurobert", "modernbert-decoder")])
def test_both_halves_of_a_pair(encoder: str, decoder: str, tmp_path: Path) -> None:
    """The encoder is its source, and the decoder its own while the cross-attention adds zeros; the pair trains."""
    folders: dict[str, Any] = {
        "encoder": create(tmp_path / "encoder", encoder, "Model"),
        "decoder": create(tmp_path / "decoder", decoder, "ForCausalLM", seed=1, hidden_size=48),
    }
    pairform.convert(**folders, out=tmp_path / "pair", cross_attention="zero_output")
    ours, read, written = pairform.load(tmp_path / "pair"), batch(padding="right"), batch(1, padding="right")
    output = ours(**read.inputs, **written.decoder_inputs)
    assert error(output.encoder_last_hidden_state, result(reference(folders["encoder"])(**read.inputs)), read.real) <= 1e-5
    assert error(output.logits, result(reference(folders["decoder"])(**written.inputs)), written.real) <= 1e-5
    with torch.enable_grad():
        loss = ours(**read.inputs, labels=written.ids).loss
        assert loss is not None
        torch.autograd.backward(loss)
    gradients = [parameter.grad for name, parameter in ours.named_parameters() if "cross_attention.block.o_proj" in name]
    assert gradients
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_older_fields_are_read(tmp_path: Path) -> None:
    """Published files have one number for the pattern of layers, and a theta of each kind."""
    folder = create(tmp_path / "model", "modernbert", "Model", global_attn_every_n_layers=2)
    spec = pairform.load_spec(folder)

    def age(config: dict[str, Any]) -> None:
        for field in ("layer_types", "rope_parameters"):
            config.pop(field)
        config |= {"global_attn_every_n_layers": 2, "global_rope_theta": 160_000.0, "local_rope_theta": 10_000.0}

    edit_json(folder / "config.json", age)
    assert pairform.load_spec(folder) == spec


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("attention_dropout", 0.1, "also drops the outputs of attention"),
        ("local_attention", 0, "more: some layers are sliding_attention"),
        ("head_dim", 16, "hidden_size / num_attention_heads"),
        ("is_causal", True, "is_causal"),
        ("classifier_pooling", "max", "classifier_pooling"),
        ("architectures", ["ModernBertForMultipleChoice"], "ModernBertForMaskedLM"),
    ],
)
def test_what_is_not_computed_is_refused(field: str, value: object, words: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", "modernbert", "ForMaskedLM")
    edit_json(folder / "config.json", lambda config: config.update({field: value}))
    refused(lambda: pairform.load(folder), "config.json", words)
