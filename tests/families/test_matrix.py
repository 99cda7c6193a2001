"""Every family whose models have an encoder, or can become one, beside every family whose models have a decoder.

The normal run takes each family beside the next one; `PAIRFORM_MATRIX=all` takes every pair of `SOURCES`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import EmbeddingGemma2Model

import pairform
from pairform.assemblies.families import FAMILIES
from pairform.assemblies.initialisation.pairing.pair import stack_of
from pairform.assemblies.specs.layer_patches import with_layer_patches
from pairform.assemblies.specs.model import StackSpec
from tests.broken.damage import refused
from tests.families import test_bert, test_embedding_gemma2, test_gemma4
from tests.parity.compare import Batch, batch, error
from tests.parity.config_folders import FOLDERS

KEPT = 1e-5
"""Largest difference between a stack and its source over the source's largest value."""
WIDER = 2
"""The width of the decoders over that of the encoders."""
MORE = 32
"""Token ids that the decoders have and the encoders do not."""


EXPERTS: dict[str, Any] = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}
SOURCES: Mapping[str, Callable[[Path], Path]] = {
    **FOLDERS,
    "bert with masked_lm": partial(test_bert.create, family="bert"),
    "gemma4_text": partial(test_gemma4.create, hidden_size_per_layer_input=0),
    "gemma4_text with shared keys": test_gemma4.sharing,
    "gemma4_text with experts": partial(test_gemma4.create, **EXPERTS),
    "gemma4_unified_text": partial(test_gemma4.create, classes="Gemma4Unified"),
    "embedding_gemma2_text": partial(test_embedding_gemma2.written, seed=1),
    "embedding_gemma2": partial(test_embedding_gemma2.written, seed=2, kind=EmbeddingGemma2Model),
}
"""A small folder of each family, under its model type."""
ALL = os.environ.get("PAIRFORM_MATRIX") == "all"


def test_every_family_is_in_the_matrix() -> None:
    assert {family.partition(" ")[0] for family in SOURCES} == FAMILIES.keys()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@cache
def encoder_source(root: Path, family: str) -> Path:
    """A folder that transformers wrote."""
    folder = SOURCES[family](root / f"encoder-{family}")
    assert json.loads((folder / "config.json").read_text())["model_type"] == family.partition(" ")[0]
    return folder


@cache
def decoder_source(root: Path, family: str) -> Path | None:
    """A model of the family with wider stacks and more token ids; None if the family has no decoder."""
    spec = pairform.load_spec(encoder_source(root, family))
    if spec.decoder is None:
        return None
    wider = {part: widened(stack) for part, stack in spec.stacks.items()}
    made = {**spec.document(), "vocabulary": spec.vocabulary + MORE, "initializer_range": 0.3, **wider}
    pairform.save(pairform.build(made, seed=1), root / f"decoder-{family}")
    return root / f"decoder-{family}"


def widened(stack: StackSpec) -> dict[str, Any]:
    """The document of a wider stack with the same heads."""
    heads = [
        {name: {"head_dim": stack.width // fields["heads"]} for name, fields in layer["branches"].items() if follows(fields)}
        for layer in (each.document() for each in stack.layers)
    ]
    document = with_layer_patches(stack.document(), [{"branches": patch} if patch else {} for patch in heads])
    if stack.layer_input is not None:
        document["layer_input"] = stack.layer_input.document() | {"vocabulary": None}
    return document | {"width": WIDER * stack.width}


def follows(branch: dict[str, Any]) -> bool:
    """Whether a branch has heads whose size follows from the stack's width."""
    return branch.get("heads") is not None and branch.get("head_dim") is None


def decoders(root: Path, encoder: str) -> Iterator[Path]:
    """The sources of decoders beside an encoder's, from the next family on."""
    families = [*SOURCES]
    after = families.index(encoder) + 1
    found = (made for family in families[after:] + families[:after] if (made := decoder_source(root, family)) is not None)
    yield from islice(found, None if ALL else 1)


@pytest.mark.parametrize("family", SOURCES)
def test_an_encoder_beside_decoders(family: str, root: Path, tmp_path: Path) -> None:
    source = encoder_source(root, family)
    for decoder in decoders(root, family):
        folder = tmp_path / decoder.name
        pairform.convert(encoder=source, decoder=decoder, out=folder / "pair")
        assert pairform.verify(folder / "pair").ok
        model = pairform.load(folder / "pair")
        assert model.spec.vocabulary_of("encoder") != model.spec.vocabulary
        check_encoder(source, folder)
        check_generation(model)
        check_training(model)
        check_silent(source, decoder, folder)


@torch.no_grad()
def check_encoder(source: Path, folder: Path) -> None:
    """With its source's masks and positions, the encoder computes what its source does."""
    pairform.extract(folder / "pair", folder / "encoder")
    alone, original = pairform.load_spec(folder / "encoder"), pairform.load(source)
    _, stack = stack_of(original.spec, "encoder")
    document = {field: value for field, value in stack.document().items() if field not in ("vocabulary", "tokens")}
    same, plan = pairform.carry(folder / "encoder", alone.document() | {"encoder": document})
    assert not plan.totals["fresh"]["tensors"]
    for padding in (None, "right"):
        read = batch(padding=padding, vocabulary=90)
        assert error(hidden(same, read), hidden(original, read), read.real) <= KEPT


def hidden(model: pairform.Model, read: Batch) -> Tensor:
    """The last hidden states of a model's encoder, or of its only stack."""
    target = {"decoder_input_ids": read.ids[:, :1]} if len(model.spec.stacks) > 1 else {}
    output = model(**read.inputs, **target)
    found = output.encoder_last_hidden_state if target else output.last_hidden_state
    assert found is not None
    return found


def check_generation(model: pairform.Model) -> None:
    """With and without a cache, from sources with padding that the encoder knows by its own token or by the mask."""
    read = batch(padding="right", vocabulary=90)
    options: dict[str, Any] = {"max_new_tokens": 5, "eos_token_id": []}
    found = model.generate(**read.inputs, **options)
    assert found.shape == (len(read.ids), 6)
    assert found.equal(model.generate(**read.inputs, **options, use_cache=False))


def check_training(model: pairform.Model) -> None:
    """A step moves both stacks."""
    read = batch(padding="right", vocabulary=90)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = model(**read.inputs, labels=read.ids.masked_fill(~read.real, -100)).loss
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert loss.isfinite()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    moved = {name.partition(".")[0] for name, parameter in model.named_parameters() if not parameter.equal(before[name])}
    assert moved >= {"encoder", "decoder"}


@torch.no_grad()
def check_silent(source: Path, decoder: Path, folder: Path) -> None:
    """A decoder whose cross-attention adds nothing computes what its source does alone."""
    options: dict[str, Any] = {"source_attention": "separate", "cross_attention": "zero_output"}
    asked: dict[str, Any] = {"encoder": source, "decoder": decoder, "out": folder / "silent", **options}
    stack = pairform.load_spec(decoder).decoder
    assert stack is not None
    if any(layer.placement == "post" for layer in stack.layers):
        refused(lambda: pairform.convert(**asked), "placement", "post")
        return
    pairform.convert(**asked)
    pairform.extract(decoder, folder / "decoder", part="decoder")
    silent, alone = pairform.load(folder / "silent"), pairform.load(folder / "decoder")
    read = batch(padding="right", vocabulary=120)
    heard = batch(1, vocabulary=90).ids
    assert error(silent(heard, **read.decoder_inputs).logits, alone(**read.inputs).logits, read.real) <= KEPT
