"""T5, T5 v1.1 and mT5 as transformers computes them, there and back, and as sources."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounterWithBackend

import pairform
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.specs.canonical import differences
from tests.broken.damage import edit_json, refused
from tests.checkpoints import gemma2
from tests.made_once import made_once
from tests.parity.compare import FLOAT32, PADDINGS, batch, error, reference, write
from tests.parity.pictures import same_bytes
from tests.parity.test_conversion import KEPT

CLASSES = {"t5": "T5", "v1.1": "T5", "mt5": "MT5", "umt5": "UMT5"}
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 6,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "initializer_factor": 2.0,
    "decoder_start_token_id": 0,
}
"""Other depths and widths than each other's, and distances beyond the last bucket's in the tests' sequences."""
KINDS: dict[str, dict[str, Any]] = {
    "t5": {},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "mt5": {},
}
OWN_HEADS = ("v1.1", "mt5")
TABLE = 2.0
"""Spread of the tables of positions: wide enough for the tests to see which row was read."""


@made_once
def create(
    folder: Path, /, kind: str = "t5", architecture: str = "ForConditionalGeneration", *, seed: int = 0, **changes: Any
) -> Path:
    """A small folder of transformers' own writing. It ties every head that it makes; published v1.1 and mT5 have their own."""
    torch.manual_seed(seed)
    own_head = changes.pop("own_head", kind in OWN_HEADS)
    config = getattr(transformers, f"{CLASSES[kind]}Config")(**{**SMALL, **KINDS.get(kind, {}), **changes})
    model = getattr(transformers, CLASSES[kind] + architecture)(config)
    if own_head and architecture == "ForConditionalGeneration":
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relative_attention_bias.weight"):
                parameter.normal_(std=TABLE)
    return write(folder, model)


def random_config(seed: int) -> dict[str, Any]:
    """Any sizes and buckets, gated or not, any activation that transformers' files name, a head of its own or not."""
    rng = random.Random(seed)
    activation = rng.choice(["relu", "gelu", "gelu_new", "silu", "gated-gelu", "gated-silu", "gated-relu"])
    return {
        "d_model": rng.choice([24, 32]),
        "d_kv": rng.choice([4, 8, 10]),
        "d_ff": rng.choice([16, 40]),
        "num_layers": rng.randint(1, 4),
        "num_decoder_layers": rng.choice([None, 1, 3]),
        "num_heads": rng.choice([1, 4, 6]),
        "relative_attention_num_buckets": rng.choice([4, 8, 32]),
        "relative_attention_max_distance": rng.choice([20, 128]),
        "layer_norm_epsilon": rng.choice([1e-6, 1e-3]),
        "feed_forward_proj": activation,
        "own_head": rng.random() < 0.5,
        "tie_word_embeddings": rng.random() < 0.5,
    }


def inputs_of(seed: int, padding: str | None) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """Both stacks' inputs, and where their tokens are real."""
    read, written = batch(seed, length=17, padding=padding), batch(seed + 1, length=15, padding=padding)
    return {**read.inputs, **written.decoder_inputs}, read.real, written.real


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["t5", "mt5"])
@torch.no_grad()
def test_random_models(kind: str, seed: int, tmp_path: Path) -> None:
    """Logits are transformers', and there and back not a byte of the weights differs, nor a logit."""
    folder = create(tmp_path / "model", kind, seed=seed, **random_config(seed))
    inputs, read, written = inputs_of(seed, PADDINGS[seed % 3])
    theirs, ours = reference(folder).eval(), pairform.load(folder)
    expected = theirs(**inputs)
    for kernel in ("sdpa", "eager"):
        ours.use_kernel(kernel)
        got = ours(**inputs)
        assert error(got.encoder_last_hidden_state, expected.encoder_last_hidden_state, read) <= FLOAT32
        assert error(got.logits, expected.logits, written) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    assert torch.equal(reference(tmp_path / "back", strict=True).eval()(**inputs).logits, expected.logits)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_part_of_the_configuration_matters(kind: str, tmp_path: Path) -> None:
    """What would pass unnoticed if the tests' weights were too narrow."""
    folder = create(tmp_path / "model", kind)
    inputs, _, written = inputs_of(0, "left")
    expected = reference(folder).eval()(**inputs).logits
    own: dict[str, Any] = {"layer": {"branches": {"self_attention": {"position": {"max_distance": 40}}}}}
    scaled = {"layer": {"branches": {"self_attention": {"scale": 8**-0.5}}}}
    patches: list[dict[str, Any]] = [{"encoder": own}, {"decoder": own}, {"encoder": scaled}, {"decoder": scaled}]
    patches += [{"head": {"scale": 1.0 if kind == "t5" else "inverse_sqrt_width"}}]
    for patch in patches:
        assert error(pairform.load(folder, patch=patch)(**inputs).logits, expected, written) > 100 * FLOAT32


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_written_tokens(kind: str, padding: str | None, tmp_path: Path) -> None:
    """Further than the buckets reach; a decoder begins with the padding token."""
    folder = create(tmp_path / "model", kind, own_head=True)
    ours, read = pairform.load(folder), batch(padding=padding)
    expected = reference(folder).generate(**read.inputs, max_new_tokens=24, do_sample=False)
    for use_cache in (True, False):
        assert torch.equal(ours.generate(**read.inputs, max_new_tokens=24, use_cache=use_cache), expected)
    assert len(set(expected.flatten().tolist())) > 6


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients(kind: str, tmp_path: Path) -> None:
    """From labels alone: they are shifted behind the start token. The table that all layers read learns from all."""
    folder = create(tmp_path / "model", kind)
    theirs, ours = reference(folder).eval(), pairform.load(folder)
    read, labels = batch(padding="right"), batch(1, length=9).ids
    expected, got = theirs(**read.inputs, labels=labels).loss, ours(**read.inputs, labels=labels).loss
    assert got is not None
    assert error(got, expected) <= FLOAT32
    expected.backward()
    got.backward()
    for part in ("encoder", "decoder"):
        table = theirs.get_parameter(f"{part}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        assert (
            error(ours.get_parameter(f"{part}.layers.0.self_attention.block.position.table.weight").grad, table.grad) <= FLOAT32
        )
    assert error(ours.get_parameter("encoder.embedding.weight").grad, theirs.shared.weight.grad) <= FLOAT32


@pytest.mark.parametrize("architecture", ["Model", "EncoderModel"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_without_a_head(kind: str, architecture: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model", kind, architecture)
    inputs, read, written = inputs_of(0, "left")
    if architecture == "EncoderModel":
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    ours = pairform.load(folder)
    expected, got = reference(folder).eval()(**inputs).last_hidden_state, ours(**inputs).last_hidden_state
    assert error(got, expected, read if architecture == "EncoderModel" else written) <= FLOAT32
    pairform.save(ours, tmp_path / "back", format="transformers")
    assert same_bytes(folder, tmp_path / "back")
    reference(tmp_path / "back", strict=True)


@torch.no_grad()
def test_a_head_of_its_own_is_known_by_its_table(tmp_path: Path) -> None:
    """transformers 5 says that every head is tied, and unties the one whose table is there."""
    folder = create(tmp_path / "model", "t5", own_head=True)
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    inputs, _, written = inputs_of(0, None)
    ours = pairform.load(folder)
    assert ours.spec == pairform.load_spec(folder)
    assert error(ours(**inputs).logits, reference(folder).eval()(**inputs).logits, written) <= FLOAT32
    published = create(tmp_path / "published", "v1.1")
    edit_json(published / "config.json", lambda config: config.update(tie_word_embeddings=False, scale_decoder_outputs=None))
    assert differences(pairform.load_spec(published), pairform.load(create(tmp_path / "new", "v1.1")).spec) == {}
    tensors = load_file(published / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, published / "model.safetensors", {"format": "pt"})
    refused(lambda: pairform.load(published), "head.weight", "no such tensor")


def test_what_older_files_hold_twice_is_left_there(tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    file, expected = folder / "model.safetensors", dict(pairform.load(folder).named_parameters())
    tensors = load_file(file)
    tensors |= {f"{part}.embed_tokens.weight": tensors["shared.weight"].clone() for part in ("encoder", "decoder")}
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(8, 6)
    save_file(tensors, file, {"format": "pt"})
    edit_json(folder / "config.json", lambda config: config.update(architectures=["T5WithLMHeadModel"]))
    found = dict(pairform.load(folder).named_parameters())
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in expected)


SIZES = ("d_model", "num_layers", "num_heads", "d_ff")
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
PUBLISHED: dict[str, tuple[str, tuple[int, ...], dict[str, Any], int]] = {
    "t5-small": ("t5", (512, 6, 8, 2048), {}, 60_506_624),
    "t5-base": ("t5", (768, 12, 12, 3072), {}, 222_903_552),
    "t5-large": ("t5", (1024, 24, 16, 4096), {}, 737_668_096),
    "t5-v1.1-small": ("t5", (512, 8, 6, 1024), V11, 76_961_152),
    "t5-v1.1-base": ("t5", (768, 12, 12, 2048), V11, 247_577_856),
    "t5-v1.1-large": ("t5", (1024, 24, 16, 2816), V11, 783_150_080),
    "mt5-small": ("mt5", (512, 8, 6, 1024), V11, 300_176_768),
}
"""The family, the sizes and the other fields of published configurations, and how many parameters their checkpoints have."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_what_transformers_builds_of_the_published_config(name: str) -> None:
    kind, sizes, fields, total = PUBLISHED[name]
    fields = {**fields, "d_kv": 64, "decoder_start_token_id": 0, **dict(zip(SIZES, sizes, strict=True))}
    assert differences(FAMILIES[kind].spec(fields), pairform.load_spec(name)) == {}
    with torch.device("meta"):
        theirs = getattr(transformers, f"{CLASSES[kind]}ForConditionalGeneration")(
            getattr(transformers, f"{CLASSES[kind]}Config")(**fields)
        )
    head = theirs.lm_head.weight.numel() if fields.get("tie_word_embeddings") is False else 0
    ours = sum(map(torch.numel, pairform.build(name, device="meta").parameters()))
    assert ours == sum(map(torch.numel, theirs.parameters())) + head == total


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("d_model", "x", "d_model"),
        ("num_layers", 0, "num_layers"),
        ("num_heads", -1, "num_heads"),
        ("relative_attention_num_buckets", 6, "position.buckets: found 6, expected a number that 4 divides"),
        ("relative_attention_max_distance", 1, "position.max_distance: found 1, expected more than "),
        ("relative_attention_max_distance", 4, "found 4, expected more than 4: of the 8 buckets, 4 are single distances"),
        ("feed_forward_proj", "gated-tanhshrink", "feed_forward_proj"),
        ("feed_forward_proj", "double-gated-gelu", "feed_forward_proj"),
        ("dense_act_fn", "tanhshrink", "dense_act_fn"),
        ("is_gated_act", "yes", "is_gated_act"),
        ("dropout_rate", 2.0, "dropout_rate"),
        ("decoder_start_token_id", 96, "tokens.start"),
        ("architectures", ["T5ForQuestionAnswering"], "architectures"),
        ("architectures", ["T5ForTokenClassification"], "architectures"),
        ("num_decoder_layers", 3, "decoder.layers.2"),
    ],
)
def test_a_broken_configuration_names_its_field(field: str, value: object, words: str, tmp_path: Path) -> None:
    folder = create(tmp_path / "model")
    edit_json(folder / "config.json", lambda config: config.update({"dense_act_fn": None, field: value}))
    refused(lambda: pairform.load(folder), str(folder), words)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"decoder": {"layer": {"branches": {"cross_attention": {"softcap": 50.0}}}}}, "softcap"),
        ({"encoder": {"layer": {"norm": {"unit_offset": True}}}}, "unit_offset"),
        ({"head": {"scale": 0.5}}, "head.scale"),
        (
            {"encoder": {"embedding": {"scale": "sqrt_width"}}, "decoder": {"embedding": {"scale": "sqrt_width"}}},
            "embedding.scale",
        ),
    ],
)
def test_what_transformers_cannot_say_is_not_written(patch: dict[str, Any], words: str, tmp_path: Path) -> None:
    ours = pairform.load(create(tmp_path / "model"), patch=patch)
    refused(lambda: pairform.save(ours, tmp_path / "back", format="transformers"), words)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_its_encoder_beside_another_familys_decoder(kind: str, tmp_path: Path) -> None:
    """The encoder is transformers' own; with silent cross-attention, so is the decoder."""
    folder, other = create(tmp_path / "t5", kind, d_model=24), gemma2(tmp_path / "gemma")
    pairform.convert(encoder=folder, decoder=other, out=tmp_path / "pair", cross_attention="zero_output")
    ours, encoder, decoder = pairform.load(tmp_path / "pair"), reference(folder).eval().encoder, reference(other)
    for padding in PADDINGS:
        inputs, read, written = inputs_of(0, padding)
        got = ours(**inputs)
        expected = encoder(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        assert error(got.encoder_last_hidden_state, expected, read) <= KEPT
        alone = decoder(inputs["decoder_input_ids"], inputs["decoder_attention_mask"]).logits
        assert error(got.logits, alone, written) <= KEPT


@torch.no_grad()
def test_layers_without_the_first_take_its_table_along(tmp_path: Path) -> None:
    folder = create(tmp_path / "t5")
    pairform.convert(encoder=folder, decoder=folder, encoder_layers=[1, 2], out=tmp_path / "pair")
    ours, theirs = pairform.load(tmp_path / "pair"), reference(folder).eval().encoder
    first, *rest = theirs.block
    rest[0].layer[0].SelfAttention.relative_attention_bias = first.layer[0].SelfAttention.relative_attention_bias
    rest[0].layer[0].SelfAttention.has_relative_attention_bias = True
    theirs.block = torch.nn.ModuleList(rest)
    read = batch(padding="left")
    expected = theirs(**read.inputs).last_hidden_state
    assert error(ours(**read.inputs, decoder_input_ids=read.ids).encoder_last_hidden_state, expected, read.real) <= KEPT


@torch.no_grad()
def test_layers_get_tables_of_their_own_that_begin_as_the_shared_one(tmp_path: Path) -> None:
    folder = create(tmp_path / "t5")
    source = pairform.load(folder)
    own = {"layer": {"branches": {"self_attention": {"position": {"shared": False}}}}}
    made, plan = pairform.carry(source, patch={"encoder": own, "decoder": own})
    assert plan.totals["fresh"]["tensors"] == 0
    inputs, _, _ = inputs_of(0, "right")
    assert torch.equal(made(**inputs).logits, source(**inputs).logits)
    tables = [name for name, _ in made.named_parameters() if "position.table" in name]
    assert len(tables) == 3 + 2
    again, _ = pairform.carry(made, source.spec)
    assert all(again.get_parameter(name).equal(parameter) for name, parameter in source.named_parameters())


@torch.no_grad()
def test_an_encoder_alone(tmp_path: Path) -> None:
    folder = create(tmp_path / "t5")
    pairform.extract(folder, tmp_path / "encoder", part="encoder", format="transformers")
    reference(tmp_path / "encoder", strict=True)
    read = batch(padding="left")
    expected = reference(folder).eval().encoder(**read.inputs).last_hidden_state
    assert error(pairform.load(tmp_path / "encoder")(**read.inputs).last_hidden_state, expected, read.real) <= FLOAT32


@torch.no_grad()
def test_all_layers_share_their_compiled_code(tmp_path: Path) -> None:
    torch._dynamo.reset()
    folder = create(tmp_path / "t5")
    ours, (inputs, _, _) = pairform.load(folder), inputs_of(0, "left")
    expected, graphs = ours(**inputs).logits, CompileCounterWithBackend("eager")
    ours.compile_layers(fullgraph=True, backend=graphs)
    assert error(ours(**inputs).logits, expected) <= FLOAT32
    assert graphs.frame_count == 2  # an encoder's layer and a decoder's
