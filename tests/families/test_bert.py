"""BERT, RoBERTa and XLM-RoBERTa as transformers computes them, there and back."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import pairform
from tests.broken.damage import edit_json, refused
from tests.families.any_family import EQUAL, SEEDS, check_family
from tests.made_once import made_once
from tests.parity.compare import PADDINGS, batch, error, reference, write
from tests.parity.pictures import same_bytes

CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "initializer_range": 1.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TYPES = torch.arange(14).repeat(3, 1) % 2


@made_once
def create(folder: Path, /, family: str = "bert", kind: str = "ForMaskedLM", *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    config = getattr(transformers, CLASSES[family] + "Config")(**{**SMALL, **changes})
    pooler = {"add_pooling_layer": False} if kind == "Model" and seed % 2 else {}
    return write(folder, getattr(transformers, CLASSES[family] + kind)(config, **pooler))


def random_config(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 4, 6])
    return {
        "hidden_size": heads * rng.choice([5, 8, 16]),
        "intermediate_size": rng.choice([16, 40]),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "hidden_act": rng.choice(["gelu", "gelu", "gelu_new", "relu", "silu"]),
        "layer_norm_eps": rng.choice([1e-12, 1e-5, 1e-3]),
        "type_vocab_size": rng.choice([1, 2, 3]),
        "max_position_embeddings": rng.choice([20, 40]),
        "hidden_dropout_prob": rng.choice([0.0, 0.1]),
        "attention_probs_dropout_prob": rng.choice([0.0, 0.2]),
        "classifier_dropout": rng.choice([None, 0.3]),
        "num_labels": rng.randint(1, 4),
    }


KINDS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", CLASSES)
def test_random_configurations(family: str, seed: int, tmp_path: Path) -> None:
    kind = KINDS[seed % 3]
    # transformers' BERT counts padding on the left, and classifies by its hidden state
    whole = family != "bert" and kind != "ForSequenceClassification"
    paddings = PADDINGS if whole else (None, "right")
    check_family(
        lambda folder, seed: create(folder, family, kind, seed=seed, **random_config(seed)),
        seed,
        tmp_path,
        kind="encoder",
        paddings=paddings,
    )


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_token_types_and_positions(family: str, padding: str | None, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", family)
    read = batch(padding=padding)
    places = (read.mask.cumsum(1) - 1).clamp(min=0)
    given = {"position_ids": places} if family == "bert" else {}
    ours, theirs = pairform.load(folder), reference(folder)
    expected = theirs(**read.inputs, token_type_ids=TYPES, **given).logits
    assert error(ours(**read.inputs, token_type_ids=TYPES).logits, expected, read.real) <= EQUAL
    assert error(ours(**read.inputs).logits, expected, read.real) > 100 * EQUAL
    labels = read.ids.masked_fill(~read.real, -100)
    losses = [model(**read.inputs, labels=labels, **extra).loss for model, extra in ((ours, {}), (theirs, given))]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_a_base_model_has_a_pooler_or_none(family: str, tmp_path: Path) -> None:
    read = batch(padding="right")
    for seed, head in enumerate(("sentence_embedding", "none")):
        folder, back = create(tmp_path / f"model-{seed}", family, "Model", seed=seed), tmp_path / f"back-{seed}"
        ours = pairform.load(folder)
        assert ours.spec.head.name == head
        theirs = reference(folder)
        expected, found = theirs(**read.inputs), ours(**read.inputs)
        assert error(found.last_hidden_state, expected.last_hidden_state, read.real) <= EQUAL
        if head == "sentence_embedding":
            assert error(found.logits, expected.pooler_output) <= EQUAL
        pairform.save(ours, back, format="transformers")
        assert same_bytes(folder, back)
        assert pairform.load_spec(back).head == ours.spec.head
        # without weights, config.json alone says it
        (back / "model.safetensors").unlink()
        assert pairform.load_spec(back).head == ours.spec.head


def test_the_tanh_form_of_gelu_keeps_its_name(tmp_path: Path) -> None:
    """transformers rounds differently under its other name."""
    ours = pairform.load(create(tmp_path / "model", hidden_act="gelu_new"))
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert json.loads((tmp_path / "back/config.json").read_text())["hidden_act"] == "gelu_new"


@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_a_span_head(family: str, tmp_path: Path) -> None:
    folder, read = create(tmp_path / "model", family, "ForQuestionAnswering"), batch(padding="right")
    ours, expected = pairform.load(folder), reference(folder)(**read.inputs)
    logits = torch.stack((expected.start_logits, expected.end_logits), -1)
    assert error(ours(**read.inputs).logits, logits, read.real) <= EQUAL
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")


@pytest.mark.parametrize("family", CLASSES)
@torch.no_grad()
def test_without_tied_embeddings_the_bias_of_the_projection_counts(family: str, tmp_path: Path) -> None:
    folder, read = create(tmp_path / "model", family, tie_word_embeddings=False), batch(padding="right")
    ours = pairform.load(folder)
    expected = reference(folder)(**read.inputs).logits
    assert error(ours(**read.inputs).logits, expected, read.real) <= EQUAL
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert error(reference(tmp_path / "back", strict=True)(**read.inputs).logits, expected, read.real) <= EQUAL


def rewritten(folder: Path, change: Any) -> None:
    """Apply `change` to the tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors")


@torch.no_grad()
def test_files_of_earlier_years(tmp_path: Path) -> None:
    folder, read = create(tmp_path / "model"), batch(padding="right")
    expected = pairform.load(folder)(**read.inputs).logits

    def old(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        made = {}
        for name, tensor in tensors.items():
            for new, first in names.items():
                name = name.replace(new, first)
            made[name] = tensor
        bias = made["cls.predictions.bias"]
        made |= {"cls.predictions.decoder.bias": bias.clone(), "bert.embeddings.position_ids": torch.arange(32)[None]}
        made["cls.predictions.decoder.weight"] = made["bert.embeddings.word_embeddings.weight"].clone()
        made |= {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
        return made | {"cls.seq_relationship.weight": torch.ones(2, 32), "cls.seq_relationship.bias": torch.ones(2)}

    rewritten(folder, old)
    edit_json(folder / "config.json", lambda config: config.update(architectures=["BertForPreTraining"]))
    found = pairform.load(folder)
    assert torch.equal(found(**read.inputs).logits, expected)
    rewritten(folder, lambda tensors: {name: tensors[name] for name in tensors if name != "cls.predictions.bias"})
    assert torch.equal(pairform.load(folder)(**read.inputs).logits, expected)


@torch.no_grad()
def test_a_base_model_in_a_file_of_another_class(tmp_path: Path) -> None:
    """Its tensors have the prefix there, and a head."""
    folder, read = create(tmp_path / "model"), batch()
    expected = pairform.load(folder)(**read.inputs).last_hidden_state
    edit_json(folder / "config.json", lambda config: config.update(architectures=["BertModel"]))
    model = pairform.load(folder)
    assert model.spec.head.name == "none"
    assert torch.equal(model(**read.inputs).last_hidden_state, expected)


@pytest.mark.parametrize(
    ("family", "changes", "found"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type: found 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder: found true...EncoderDecoderModel"),
        ("bert", {"is_causal": True}, "is_causal: found true, expected false"),
        ("bert", {"type_vocab_size": 0}, "type_vocab_size"),
        ("bert", {"hidden_act": "nothing"}, "hidden_act: found 'nothing'"),
        ("bert", {"architectures": ["BertForNextSentencePrediction"]}, "architectures...BertForMaskedLM"),
        ("bert", {"num_attention_heads": 5}, "heads"),
        ("bert", {"type_vocab_size": 3}, "token_type_embeddings...expected [3, 32]"),
        ("roberta", {"pad_token_id": None}, "pad_token_id: found null, expected a token"),
        ("roberta", {"pad_token_id": 31}, "offset: found 32, expected less than the table's length of 32"),
    ],
)
def test_what_is_refused(family: str, changes: dict[str, Any], found: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", family)
    edit_json(folder / "config.json", lambda config: config.update(changes))
    refused(lambda: pairform.load(folder), *found.split("..."))


@torch.no_grad()
def test_an_encoder_of_a_pair_keeps_its_own_embeddings(tmp_path: Path) -> None:
    from tests.families.test_gpt2 import create as gpt2

    bert, decoder = create(tmp_path / "bert"), gpt2(tmp_path / "gpt2")
    pairform.convert(encoder=bert, decoder=decoder, out=tmp_path / "pair")
    assert pairform.verify(tmp_path / "pair").ok
    read, written = batch(padding="right"), batch(1)
    pair, source = pairform.load(tmp_path / "pair"), pairform.load(bert)
    output = pair(**read.inputs, **written.decoder_inputs, token_type_ids=TYPES)
    expected = source(**read.inputs, token_type_ids=TYPES).last_hidden_state
    assert error(output.encoder_last_hidden_state, expected, read.real) <= EQUAL
