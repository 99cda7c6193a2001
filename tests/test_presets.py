"""Presets: the published sizes, the committed expanded forms, transformers' own defaults."""

import json
import subprocess
import sys

import pytest
from transformers import Gemma2Config, T5GemmaConfig

import pairform
from pairform.assemblies.build import skeleton
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.normal import differences
from tests.golden import HERE, golden_files, text_of

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
}
"""Parameters of the published checkpoints."""

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


def test_presets_are_the_expected_ones() -> None:
    assert pairform.presets() == sorted(TOTALS)


@pytest.mark.parametrize("name", TOTALS)
def test_total_parameters_equal_the_published_checkpoint(name: str) -> None:
    model = pairform.build(name, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == TOTALS[name]


@pytest.mark.parametrize("name", PARTS)
def test_parameters_by_part_equal_the_published_ones(name: str) -> None:
    found = pairform.inspect(name, source_length=1, target_length=1).parameters
    assert (found["encoder"], found["decoder"], found["cross_attention"]) == PARTS[name]
    assert found["total"] == found["embedding"] + found["encoder"] + found["decoder"] == TOTALS[name]


def test_golden_files_are_up_to_date() -> None:
    stale = [path.name for path, document in golden_files() if path.read_text("utf-8") != text_of(document)]
    assert not stale, "run `make schema` and look at the difference"
    assert {path.stem for path in HERE.glob("*.json")} == set(pairform.presets())


def test_gemma_2b_is_what_transformers_configures_by_default() -> None:
    config = json.loads(Gemma2Config(architectures=["Gemma2ForCausalLM"]).to_json_string())
    assert differences(FAMILIES["gemma2"].to_spec(config), pairform.load_spec("gemma-2-2b")) == {}


def test_t5gemma_2b_2b_is_what_transformers_configures_by_default() -> None:
    config = json.loads(T5GemmaConfig(architectures=["T5GemmaForConditionalGeneration"]).to_json_string())
    assert differences(FAMILIES["t5gemma"].to_spec(config), pairform.load_spec("t5gemma-2b-2b")) == {}


@pytest.mark.parametrize("name", TOTALS)
def test_every_preset_can_be_stored_as_transformers_does(name: str) -> None:
    spec = pairform.load_spec(name)
    family = FAMILIES["gemma2" if spec.assembly == "decoder_only" else "t5gemma"]
    assert differences(family.to_spec(family.config(spec)), spec) == {}
    theirs = [family.theirs(ours, spec) for ours, _ in skeleton(spec).named_parameters()]
    assert len(set(theirs)) == len(theirs)


def test_listing_presets_needs_no_torch() -> None:
    code = "import sys, pairform; pairform.presets(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
