"""What an adapted pair has learnt: how much its decoder makes of the source, and what its encoder knows about a text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import pairform
from examples.adaptation.texts import LABELS, labels_of

SOURCE, TARGET = 96, 64
"""Bytes that a model reads, and bytes that follow them."""
FIRST_BYTE = 3
"""The token id of byte 0: pad, end and begin come before it."""
ROWS = 50
"""Rows of a forward pass."""
RIDGE = 1.0
"""Weight of the squared norm in the classifier's least squares."""


@dataclass(frozen=True)
class Texts:
    """Windows of files that no model was trained on.

    sources: token ids, `[windows, SOURCE]`.
    targets: of the bytes that follow, `[windows, TARGET]`.
    labels:  of each byte of the sources, `[windows, SOURCE]`.
    """

    sources: Tensor
    targets: Tensor
    labels: Tensor


def read_texts(folder: Path, windows: int) -> tuple[Texts, Texts]:
    """Texts to fit a classifier on and texts to test it on, of different files. windows: number in each."""
    texts = [json.loads(line)["text"] for line in (folder / "apart.jsonl").read_text("utf-8").splitlines()]
    return cut(texts[::2], windows), cut(texts[1::2], windows)


def cut(texts: list[str], windows: int) -> Texts:
    """Windows at equal distances."""
    length = SOURCE + TARGET
    ids = [torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + FIRST_BYTE for text in texts]
    labels = [torch.tensor(labels_of(text)) for text in texts]
    places = [(number, begin) for number, each in enumerate(ids) for begin in range(0, len(each) - length, length)]
    chosen = [places[index * len(places) // windows] for index in range(windows)]
    read = torch.stack([ids[number][begin : begin + length] for number, begin in chosen])
    of_read = torch.stack([labels[number][begin : begin + SOURCE] for number, begin in chosen])
    return Texts(read[:, :SOURCE], read[:, SOURCE:], of_read)


def of_model(model: pairform.Model, texts: tuple[Texts, Texts]) -> dict[str, float]:
    """The measures of a model; only one with an encoder makes something of a source."""
    found = {"representation": representation(model, *texts)}
    return found if model.encoder is None else found | {"use of the source": use_of_the_source(model, texts[1])}


def representation(model: pairform.Model, fitted: Texts, tested: Texts) -> float:
    """The share of bytes whose label a linear classifier finds in the last hidden states of the encoder, or the only stack.

    It is fitted by least squares.
    """
    read, unseen = (hidden_states(model, each.sources) for each in (fitted, tested))
    mean, deviation = read.mean(0), read.std(0)
    read, unseen = ((torch.cat([(each - mean) / deviation, torch.ones(len(each), 1)], 1)).double() for each in (read, unseen))
    wanted = nn.functional.one_hot(fitted.labels.flatten(), len(LABELS)).double()
    weights = torch.linalg.solve(read.T @ read + RIDGE * torch.eye(read.shape[1]), read.T @ wanted)
    return float(((unseen @ weights).argmax(1) == tested.labels.flatten()).double().mean())


@torch.no_grad()
def hidden_states(model: pairform.Model, sources: Tensor) -> Tensor:
    """`[tokens, width]`, without gradients."""
    found = []
    for rows in torch.split(sources, ROWS):
        if model.encoder is None or model.decoder is None:
            found.append(model(rows).last_hidden_state)
        else:
            found.append(model(rows, decoder_input_ids=rows[:, :1]).encoder_last_hidden_state)
    return torch.cat(found).flatten(0, 1)


@torch.no_grad()
def use_of_the_source(model: pairform.Model, texts: Texts) -> float:
    """How much lower the loss of a byte is with its own source than with that of another text."""
    losses = [
        sum(model(input_ids=read, labels=written).loss.item() for read, written in batches(sources, texts.targets))
        for sources in (texts.sources, texts.sources.roll(1, 0))
    ]
    return (losses[1] - losses[0]) / len(list(batches(texts.sources, texts.targets)))


def batches(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(each, ROWS) for each in tensors), strict=True)
