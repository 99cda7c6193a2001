"""UMT5: T5 with a table of positions in each layer, and a head that always scales."""

import random
from pathlib import Path

import pytest
import torch

import pairform
from tests.families.any_family import SEEDS, Case, check_family, written
from tests.parity.test_t5 import TABLE


def folder_of(folder: Path, seed: int) -> Path:
    return written(folder, random_case(seed), seed)


def random_case(seed: int) -> Case:
    rng = random.Random(seed)
    config = {  # transformers makes its cache with as many layers as the encoder has: the decoder must not have more
        "vocab_size": 96,
        "d_model": rng.choice([24, 32]),
        "d_kv": rng.choice([4, 8]),
        "d_ff": rng.choice([16, 40]),
        "num_layers": rng.randint(2, 4),
        "num_decoder_layers": rng.choice([None, 1, 2]),
        "num_heads": rng.choice([1, 4]),
        "relative_attention_num_buckets": rng.choice([4, 8, 32]),
        "relative_attention_max_distance": rng.choice([20, 128]),
        "feed_forward_proj": rng.choice(["gated-gelu", "relu", "gated-silu"]),
        "initializer_factor": TABLE,
        "decoder_start_token_id": 0,
    }
    return Case("UMT5", config, rng.choice(["ForConditionalGeneration", "ForConditionalGeneration", "Model"]))


@pytest.mark.parametrize("seed", SEEDS)
def test_random_models(seed: int, tmp_path: Path) -> None:
    check_family(folder_of, seed, tmp_path, kind="encoder_decoder")


@torch.no_grad()
def test_each_layer_has_its_own_table(tmp_path: Path) -> None:
    ours = pairform.load(folder_of(tmp_path / "model", 0))
    assert ours.encoder is not None
    tables = [layer.get_submodule("self_attention.block.position.table") for layer in ours.encoder.layers]
    assert len({id(table) for table in tables}) == len(tables) > 1
