"""What an adapted pair is good for: continuing a text, and representing one."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import pairform
from examples.adaptation.texts import LABELS, labels_of

SOURCE, CONTINUED = 96, 16
"""Bytes that a model reads, and bytes that it continues them with."""
FIRST_BYTE = 3
"""The token id of byte 0: pad, end and begin come before it."""
ROWS = 50
"""Rows of a forward pass."""
STEPS = 60
"""Iterations of L-BFGS, with which the classifier's loss has stopped falling."""


@dataclass(frozen=True)
class Texts:
    """Windows of files that no model was trained on.

    sources: token ids, `[windows, SOURCE]`.
    targets: of the bytes that follow, `[windows, CONTINUED]`.
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
    length = SOURCE + CONTINUED
    ids = [torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() + FIRST_BYTE for text in texts]
    labels = [torch.tensor(labels_of(text)) for text in texts]
    places = [(number, begin) for number, each in enumerate(ids) for begin in range(0, len(each) - length, length)]
    chosen = [places[index * len(places) // windows] for index in range(windows)]
    read = torch.stack([ids[number][begin : begin + length] for number, begin in chosen])
    of_read = torch.stack([labels[number][begin : begin + SOURCE] for number, begin in chosen])
    return Texts(read[:, :SOURCE], read[:, SOURCE:], of_read)


def of_model(model: pairform.Model, texts: tuple[Texts, Texts]) -> dict[str, float]:
    """The measures of a model."""
    return {"representation": representation(model, *texts), "continuation": continuation(model, texts[1])}


def representation(model: pairform.Model, fitted: Texts, tested: Texts) -> float:
    """The share of bytes whose label a linear classifier finds in the last hidden states of the encoder, or the only stack."""
    states = [hidden_states(model, each.sources) for each in (fitted, tested)]
    mean, deviation = states[0].mean(0), states[0].std(0)
    states = [(each - mean) / deviation for each in states]
    classifier = nn.Linear(states[0].shape[1], len(LABELS))
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    optimizer = torch.optim.LBFGS(classifier.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(classifier(states[0]), fitted.labels.flatten())
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return float((classifier(states[1]).argmax(1) == tested.labels.flatten()).float().mean())


@torch.no_grad()
def hidden_states(model: pairform.Model, sources: Tensor) -> Tensor:
    """`[tokens, width]`, without gradients."""
    found = []
    for rows in torch.split(sources, ROWS):
        if model.encoder is None:
            found.append(model(rows).last_hidden_state)
        else:
            found.append(model(rows, decoder_input_ids=rows[:, :1]).encoder_last_hidden_state)
    return torch.cat(found).flatten(0, 1)


def continuation(model: pairform.Model, texts: Texts) -> float:
    """The mean number of bytes after which greedy decoding first differs from the text, at most `CONTINUED`."""
    made = [model.generate(rows, max_new_tokens=CONTINUED, eos_token_id=()) for rows in torch.split(texts.sources, ROWS)]
    equal = torch.cat([each[:, -CONTINUED:] for each in made]) == texts.targets
    return float(equal.cumprod(1).sum(1).float().mean())
