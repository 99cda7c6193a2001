"""docs/cookbook/kerashub.md says every argument of KerasHub's backbone, in fields that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import pairform
from tests.pages import blocks

PAGE = Path(__file__).parents[2] / "docs" / "cookbook" / "kerashub.md"
NAMES = """
vocabulary_size encoder_hidden_dim encoder_intermediate_dim encoder_num_layers encoder_num_attention_heads
encoder_num_key_value_heads encoder_head_dim encoder_layer_types decoder_hidden_dim decoder_intermediate_dim
decoder_num_layers decoder_num_attention_heads decoder_num_key_value_heads decoder_head_dim decoder_layer_types dropout_rate
rms_norm_eps query_pre_attn_scalar attention_bias hidden_activation tie_word_embeddings initializer_range attention_dropout
sliding_window cross_attention_hidden_size attn_logit_softcapping final_logit_softcapping rope_max_wavelength
global_rope_scaling_factor encoder_rope_max_wavelength encoder_global_rope_scaling_factor use_query_key_norm vision_encoder
eoi_token_index dtype **kwargs
"""
ARGUMENTS = NAMES.split()
ROWS = dict(re.findall(r"^\| `([\w*]+)` \|(.*?)\| .*\|$", PAGE.read_text("utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The page's documents, expanded."""
    folder = tmp_path_factory.mktemp("kerashub")
    files = [block for block in blocks(PAGE) if block.file]
    for block in files:
        (folder / str(block.file)).write_text(block.text)
    return {str(block.file): pairform.load_spec(folder / str(block.file)).document() for block in files}


def test_every_argument_has_a_row() -> None:
    assert list(ROWS) == ARGUMENTS


@pytest.mark.parametrize("argument", [name for name in ARGUMENTS if name not in ("dtype", "**kwargs")])
def test_a_field_exists_where_the_table_says(argument: str, documents: dict[str, dict[str, Any]]) -> None:
    """Whole from the model, or in one of its stacks; absent fields are not written, so in one of the documents."""
    fields = re.findall(r"`([\w.]+)`", ROWS[argument])
    assert fields
    for field in fields:
        models = list(documents.values())
        holders = (
            models if field.split(".")[0] in models[0] else [model[part] for model in models for part in ("encoder", "decoder")]
        )
        assert any(has(holder, field) for holder in holders), field


def has(document: Any, field: str) -> bool:
    for key in field.split("."):
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True


def test_the_example_is_keras_example(documents: dict[str, dict[str, Any]]) -> None:
    """Layer by layer: nothing is local, and one table for each stack, the decoder's tied to the head."""
    spec = pairform.load_spec(documents["backbone.json"])
    assert [stack.depth for stack in spec.stacks.values()] == [4, 4]
    assert all(len(set(stack.layers)) == 1 for stack in spec.stacks.values())
    layer = 2 * 256 * 4 * 64 + 2 * 256 * 2 * 64 + 2 * 64 + 3 * 256 * 512 + 4 * 256
    assert pairform.inspect(spec).parameters["total"] == 2 * (32_000 * 256 + 4 * layer + 256)


def test_the_page_sets_everything(documents: dict[str, dict[str, Any]]) -> None:
    """Every argument that the first document leaves alone is set in the second."""
    changed = json.dumps({path: new for path, (_, new) in pairform.diff(*map(pairform.load_spec, documents.values())).items()})
    fields = "bias dropout softcap window scaling theta qk_norm vision end_of_image bridge initializer_range tie"
    wanted = [field for field in fields.split() if field not in changed]
    assert wanted == []
