"""Presets: the published sizes, the committed expanded forms, transformers' own defaults."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    T5Gemma2Config,
    T5Gemma2ForConditionalGeneration,
    T5GemmaConfig,
)

import pairform
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.initialisation.pairing.pair import pair
from pairform.assemblies.modeling.build import skeleton
from pairform.assemblies.specs.canonical import differences
from pairform.assemblies.specs.model import StackSpec
from tests.golden import EXPANDED, golden_files, text_of
from tests.sizes import TEXT, TOWER, pieces

TOTALS = {
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "t5gemma-s-s": 312_517_632,
    "t5gemma-b-b": 591_490_560,
    "t5gemma-l-l": 1_241_761_792,
    "t5gemma-ml-ml": 2_200_345_344,
    "t5gemma-xl-xl": 3_766_980_608,
    "t5gemma-2b-2b": 5_596_853_760,
    "t5gemma-9b-2b": 12_292_375_296,
    "t5gemma-9b-9b": 20_333_401_088,
    "gemma-3-270m": 268_098_176,
    "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 3_880_263_168,
    "gemma-3-12b": 11_766_034_176,
    "gemma-3-27b": 27_009_346_304,
    "t5gemma2-270m-270m": 786_029_296,
    "t5gemma2-1b-1b": 2_115_977_456,
    "t5gemma2-4b-4b": 7_508_928_880,
    "t5gemma2-4b-1b": 5_302_754_416,
    "t5gemma2-4b-270m": 4_569_655_408,
    "t5gemma2-1b-4b": 5_301_132_400,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080,
    "mt5-small": 300_176_768,
    "gemma-4-e2b": 4_628_569_344,
    "gemma-4-e4b": 7_463_013_376,
    "gemma-4-12b": 11_907_350_272,
    "gemma-4-26b-a4b": 25_233_141_760,
    "gemma-4-31b": 30_697_345_280,
    "gemma-4-12b-12b": 26_221_579_776,
    "gemma-4-e4b-e2b": 12_411_003_136,
    "gemma-4-31b-e2b": 35_705_890_304,
}
"""Parameters of the published checkpoints. Gemma 3's are of the text models: 12B and 27B were counted on transformers' model of
that size, as all five are below. The unequal T5Gemma 2 are not published: `tests.sizes` says what they consist of."""

GEMMA3 = {
    "270m": (640, 18, 4, 1, 256, 2048, 256),
    "1b": (1152, 26, 4, 1, 256, 6912, 256),
    "4b": (2560, 34, 8, 4, 256, 10_240, 256),
    "12b": (3840, 48, 16, 8, 256, 15_360, 256),
    "27b": (5376, 62, 32, 16, 128, 21_504, 168),
}
"""Width, layers, query heads, key heads, head dim, feed-forward and query scalar of the published text configs. 1B reads 32K
tokens, larger ones 128K (Gemma 3 report, arXiv 2503.19786, section 2); 270M, published later, 32K."""

PARTS = {
    "t5gemma-s-s": (20_988_416, 29_385_216, 8_388_608),
    "t5gemma-b-b": (84_972_288, 113_302_272, 28_311_552),
    "t5gemma-l-l": (308_380_672, 409_093_120, 100_663_296),
    "t5gemma-ml-ml": (743_889_024, 866_632_320, 122_683_392),
    "t5gemma-xl-xl": (1_157_826_560, 1_560_578_048, 402_653_184),
    "t5gemma-2b-2b": (2_024_517_888, 2_392_687_872, 368_050_176),
    "t5gemma-9b-2b": (8_324_201_984, 2_460_845_312, 436_207_616),
    "t5gemma-9b-9b": (8_324_201_984, 10_174_191_104, 1_849_688_064),
}
"""Encoder and decoder without their embeddings, and cross-attention alone."""

UNEQUAL = ("t5gemma2-4b-1b", "t5gemma2-4b-270m", "t5gemma2-1b-4b")
"""Which transformers cannot build."""
GEMMA4_PAIRS = ("gemma-4-12b-12b", "gemma-4-e4b-e2b", "gemma-4-31b-e2b")
"""For which transformers has no class."""
T5GEMMA2 = [name for name in TOTALS if name.startswith("t5gemma2-")]


def test_presets_are_the_expected_ones() -> None:
    assert pairform.presets() == sorted(TOTALS)


@pytest.mark.parametrize("name", TOTALS)
def test_total_parameters_equal_the_published_checkpoint(name: str) -> None:
    """As transformers counts: the stored scales of Gemma 4's layers are no parameters there."""
    model = pairform.build(name, device="meta")
    counted = {path: each.numel() for path, each in model.named_parameters() if not path.endswith(".output_scale")}
    assert sum(counted.values()) == TOTALS[name]
    assert pairform.inspect(name, source_length=1, target_length=1).parameters["total"] == TOTALS[name]


@pytest.mark.parametrize("name", PARTS)
def test_parameters_by_part_equal_the_published_ones(name: str) -> None:
    found = pairform.inspect(name, source_length=1, target_length=1).parameters
    assert (found["encoder"], found["decoder"], found["cross_attention"]) == PARTS[name]
    assert found["total"] == found["embedding"] + found["encoder"] + found["decoder"] == TOTALS[name]


@pytest.mark.parametrize("name", T5GEMMA2)
def test_t5gemma_2_consists_of_its_pieces(name: str) -> None:
    assert sum(pieces(name).values()) == TOTALS[name]
    with_names = pairform.build(name, device="meta").named_parameters()
    tower = sum(parameter.numel() for name, parameter in with_names if ".vision.tower." in name)
    assert tower == TOWER


def text_config(size: str, *, scaled: bool) -> dict[str, Any]:
    """A published config of a text stack, without its vocabulary and context."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")
    everywhere = {"rope_type": "linear", "factor": 8.0} if scaled else {"rope_type": "default"}
    return dict(zip((*names, "query_pre_attn_scalar"), GEMMA3[size], strict=True)) | {
        "sliding_window": 512 if size in ("270m", "1b") else 1024,
        "rope_parameters": {"full_attention": {"rope_theta": 1e6, **everywhere}, "sliding_attention": {"rope_theta": 1e4}},
    }


@pytest.mark.parametrize("size", GEMMA3)
def test_gemma_3_is_what_transformers_builds_of_the_published_config(size: str) -> None:
    small = size in ("270m", "1b")
    limits = {"vocab_size": 262_144 if small else 262_208, "max_position_embeddings": 32_768 if small else 131_072}
    config = Gemma3TextConfig(architectures=["Gemma3ForCausalLM"], **text_config(size, scaled=not small), **limits)
    read = FAMILIES["gemma3_text"].spec(json.loads(config.to_json_string()))
    assert differences(read, pairform.load_spec(f"gemma-3-{size}")) == {}
    with torch.device("meta"):
        theirs = Gemma3ForCausalLM(config)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == TOTALS[f"gemma-3-{size}"]


@pytest.mark.parametrize("size", TEXT)
def test_t5gemma_2_is_what_transformers_builds_of_the_published_config(size: str) -> None:
    text = text_config(size, scaled=True) | {"vocab_size": 262_144}
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, "image_size": 896, "patch_size": 14}
    vision |= {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    encoder = {"text_config": text, "vision_config": vision}
    config = T5Gemma2Config(architectures=["T5Gemma2ForConditionalGeneration"], encoder=encoder, decoder=text)
    read = FAMILIES["t5gemma2"].spec(json.loads(config.to_json_string()))
    assert differences(read, pairform.load_spec(f"t5gemma2-{size}-{size}")) == {}
    with torch.device("meta"):
        theirs = T5Gemma2ForConditionalGeneration(config)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == TOTALS[f"t5gemma2-{size}-{size}"]


@pytest.mark.parametrize("name", T5GEMMA2)
def test_t5gemma_2_sees_half_a_window_on_each_side_and_global_layers_are_scaled(name: str) -> None:
    spec = pairform.load_spec(name)
    for part, stack in spec.stacks.items():
        size = name.split("-")[1 if part == "encoder" else 2]
        width = 1024 if size == "4b" else 512
        local = (width // 2 - 1, width // 2) if part == "encoder" else (width - 1, width - 1)
        assert windows(stack)[:6] == [local] * 5 + [None]
        assert positions(stack) == {(10_000.0, 1.0), (1_000_000.0, 8.0)}


@pytest.mark.parametrize("name", ["t5gemma2-4b-1b", "t5gemma2-1b-4b"])
def test_unequal_t5gemma_2_may_have_unequal_vocabularies_and_the_other_bridge(name: str) -> None:
    own_words = {"vocabulary": 32_000, "embedding": {"end_of_image": None}}
    linear = pairform.build(pairform.load_spec(name, {"decoder": own_words}), device="meta")
    ids = torch.zeros((1, 4), dtype=torch.long, device="meta")
    assert linear(ids, decoder_input_ids=ids).logits.shape == (1, 4, 32_000)
    spec = pairform.load_spec(name, {"bridge": {"name": "separate_keys"}})
    assert spec.decoder is not None
    assert spec.encoder is not None
    attention: Any = spec.decoder.layers[0].branches["self_attention"]
    separate = 2 * spec.decoder.depth * attention.kv_heads * attention.head_dim * spec.encoder.width
    total = sum(parameter.numel() for parameter in pairform.build(spec, device="meta").parameters())
    assert total == TOTALS[name] - pieces(name)["bridge"] + separate


@pytest.mark.parametrize("name", GEMMA4_PAIRS)
def test_pairs_of_gemma_4_are_what_convert_makes_of_both(name: str) -> None:
    encoder, decoder = (pairform.load_spec(f"gemma-4-{size}") for size in name.split("-")[2:])
    assert differences(pairform.load_spec(pair(encoder, decoder)), pairform.load_spec(name)) == {}
    parts = pairform.inspect(name, source_length=1, target_length=1).parameters
    alone = [pairform.inspect(spec, source_length=1, target_length=1).parameters["decoder"] for spec in (encoder, decoder)]
    norms = 2 * decoder.last.depth * decoder.last.width
    assert parts["encoder"] == alone[0]
    assert parts["decoder"] == alone[1] + parts["cross_attention"] + norms


def windows(stack: StackSpec) -> list[tuple[int, int] | None]:
    """Of each layer's attention to its own sequence."""
    attentions: list[Any] = [layer.branches["self_attention"] for layer in stack.layers]
    return [attention.mask.window for attention in attentions]


def positions(stack: StackSpec) -> set[tuple[float, float]]:
    """The theta and the scaling factor of local and of global layers."""
    attentions: list[Any] = [layer.branches["self_attention"] for layer in stack.layers]
    return {(attention.position.theta, getattr(attention.position.scaling, "factor", 1.0)) for attention in attentions}


def test_golden_files_are_up_to_date() -> None:
    stale = [path.name for path, document in golden_files() if path.read_text("utf-8") != text_of(document)]
    assert not stale, "run `make schema` and look at the difference"
    assert {path.stem for path in EXPANDED.glob("*.json")} == set(pairform.presets())


def test_gemma_2b_is_what_transformers_configures_by_default() -> None:
    config = json.loads(Gemma2Config(architectures=["Gemma2ForCausalLM"]).to_json_string())
    assert differences(FAMILIES["gemma2"].spec(config), pairform.load_spec("gemma-2-2b")) == {}


def test_t5gemma_2b_2b_is_what_transformers_configures_by_default() -> None:
    config = json.loads(T5GemmaConfig(architectures=["T5GemmaForConditionalGeneration"]).to_json_string())
    assert differences(FAMILIES["t5gemma"].spec(config), pairform.load_spec("t5gemma-2b-2b")) == {}


def family_of(name: str) -> str:
    return {"gemma-2": "gemma2", "gemma-3": "gemma3_text", "gemma-4": "gemma4_text", "qwen2.5": "qwen2"}.get(
        "-".join(name.split("-")[:2]) if name.startswith("gemma") else name.rpartition("-")[0], name.partition("-")[0]
    )


STORED = [name for name in TOTALS if name not in (*UNEQUAL, *GEMMA4_PAIRS)]


@pytest.mark.parametrize("name", [name for name in STORED if not name.startswith("gemma-4") or "gemma4_text" in FAMILIES])
def test_every_preset_can_be_stored_as_transformers_does(name: str) -> None:
    spec = pairform.load_spec(name)
    family = FAMILIES[family_of(name)]
    assert differences(family.spec(family.config(spec)), spec) == {}
    stored = [family.theirs(ours, spec) for ours, _ in skeleton(spec).named_parameters() if ".experts." not in ours]
    assert len(set(stored)) == len(stored)


@pytest.mark.parametrize("name", UNEQUAL)
def test_what_transformers_has_no_model_for_is_said(name: str) -> None:
    with pytest.raises(pairform.PairformError, match="bridge: found 'linear', expected none"):
        FAMILIES["t5gemma2"].config(pairform.load_spec(name))


def test_listing_presets_needs_no_torch() -> None:
    code = "import sys, pairform; pairform.presets(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
