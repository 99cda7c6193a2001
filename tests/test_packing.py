"""Documents packed in one row: each gets what it gets alone."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import pairform
from pairform.registry import InputError
from tests.test_blocks import TINY

KERNELS = ("eager", "chunked")
DOCUMENTS = [(5, 4), (1, 3), (9, 6), (3, 1)]
"""Lengths of source and target, of one row's documents."""
MERGED: dict[str, Any] = {
    "bridge": {"name": "separate_keys"},
    "decoder": {
        "layer": {
            "order": ["self_attention", "feed_forward"],
            "branches": {"self_attention": {"name": "merged_attention"}, "cross_attention": None},
        }
    },
}
DECODER_ONLY: dict[str, Any] = {
    "assembly": "decoder_only",
    "encoder": None,
    "decoder": {"layer": {"order": ["self_attention", "feed_forward"], "branches": {"cross_attention": None}}},
}
BY_LENGTH: dict[str, dict[str, Any]] = {
    "dynamic": {"name": "dynamic", "factor": 4.0, "original_length": 4},
    "longrope": {"name": "longrope", "short": [1.0, 1.5, 2.0, 3.0], "long": [2.0, 3.0, 5.0, 8.0], "original_length": 4},
}
"""Rotations that depend on the length: some of the documents are shorter than the original training's, some longer."""


def rotated(scaling: str) -> dict[str, Any]:
    position = {"name": "rope", "scaling": BY_LENGTH[scaling]}
    return {part: {"layer": {"branches": {"self_attention": {"position": position}}}} for part in ("encoder", "decoder")}


def text(*lengths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    return [torch.randint(3, 48, (1, length), generator=generator) for length in lengths]


def numbers(lengths: list[int], left: int = 0, right: int = 0) -> Tensor:
    """Segment ids of documents in a row, in any order of numbers, with padding before and behind."""
    ids = torch.tensor([[7, 2, 30, 4][place] for place, length in enumerate(lengths) for _ in range(length)])[None]
    return functional.pad(functional.pad(ids, (left, 0), value=7), (0, right), value=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("patch", [{}, MERGED, *map(rotated, BY_LENGTH)])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 0), (0, 3)])
def test_each_document_of_an_encoder_decoder_has_the_logits_it_has_alone(
    kernel: str, patch: dict[str, Any], left: int, right: int
) -> None:
    model = pairform.build(pairform.load_spec(TINY, patch), seed=0, kernel=kernel)
    sources, targets = (list(lengths) for lengths in zip(*DOCUMENTS, strict=True))
    read, written = text(*sources), text(*targets)

    def packed(documents: list[Tensor]) -> tuple[Tensor, Tensor]:
        ids = functional.pad(torch.cat(documents, 1), (left, right))
        return ids, (ids != 0).long()

    (ids, mask), (decoder_ids, decoder_mask) = packed(read), packed(written)
    found = model(
        ids,
        mask,
        decoder_ids,
        decoder_mask,
        segment_ids=numbers(sources, left, right),
        decoder_segment_ids=numbers(targets, left, right),
    ).logits
    alone = torch.cat([model(one, decoder_input_ids=other).logits for one, other in zip(read, written, strict=True)], 1)
    torch.testing.assert_close(found[:, left : found.shape[1] - right], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch", [{}, DECODER_ONLY])
def test_the_loss_is_that_of_the_documents_alone(patch: dict[str, Any]) -> None:
    model = pairform.build(pairform.load_spec(TINY, patch), seed=0)
    lengths = [5, 1, 9, 3]
    documents = text(*lengths)
    ids, segments = torch.cat(documents, 1), numbers(lengths)
    if model.encoder is None:
        packed = model(ids, labels=ids, segment_ids=segments).loss
        counts = [length - 1 for length in lengths]
        losses = [model(one, labels=one).loss for one in documents]
    else:
        packed = model(ids, labels=ids, segment_ids=segments, decoder_segment_ids=segments).loss
        counts, losses = lengths, [model(one, labels=one).loss for one in documents]
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True) if count) / sum(counts)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-5)


def test_a_packed_row_decodes_with_a_cache() -> None:
    model = pairform.build(pairform.load_spec(TINY, DECODER_ONLY), seed=0)
    lengths = [5, 9, 3]
    ids, segments = torch.cat(text(*lengths), 1), numbers(lengths)
    whole, cache = model(ids, segment_ids=segments).logits, pairform.Cache()
    steps = [
        model(ids[:, place : place + 1], segment_ids=segments[:, : place + 1], cache=cache).logits
        for place in range(ids.shape[1])
    ]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"segment_ids": torch.ones(1, 4, dtype=torch.long)}, "decoder_segment_ids: found segment_ids given, this absent"),
        ({"segment_ids": torch.ones(1, 4), "decoder_segment_ids": torch.ones(1, 4)}, "segment_ids: found float32"),
        (
            dict.fromkeys(("segment_ids", "decoder_segment_ids"), torch.ones(1, 5, dtype=torch.long)),
            "segment_ids: found the shape",
        ),
    ],
)
def test_numbers_that_do_not_fit_are_refused(given: dict[str, Tensor], where: str) -> None:
    ids = torch.ones(1, 4, dtype=torch.long)
    with pytest.raises(InputError, match=where):
        pairform.build(TINY, seed=0)(ids, decoder_input_ids=ids, **given)


@pytest.mark.parametrize("head", ["sequence_classification", "sentence_embedding", "contrastive", "span"])
def test_a_head_that_answers_once_for_each_row_takes_one_document(head: str) -> None:
    model = pairform.build(pairform.patch(TINY, {"head": {"name": head}}), seed=0)
    segments = torch.tensor([[0, 0, 1, 1]])
    with pytest.raises(InputError, match="segment_ids: found packed rows"):
        model(torch.arange(3, 7)[None], segment_ids=segments, decoder_segment_ids=segments)
