"""A span task: fine-tune an encoder to find, in a window of a source file, the only token of a kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import pairform
from examples.adaptation.measures import ROWS, Texts
from examples.adaptation.texts import LABELS
from pairform.training.optimization.schedule import rate
from pairform.training.settings import ScheduleSpec

KINDS = tuple(LABELS.index(name) for name in ("keyword", "definition", "call", "attribute", "number", "string", "comment"))
FIRST_QUESTION = 300
"""The token id that asks for the first label; no text has these."""
STEPS, BATCH, RATE = 150, 16, 0.001
SCHEDULE = ScheduleSpec(name="linear", warmup=15)


@dataclass(frozen=True)
class Questions:
    """Questions about windows.

    tokens: the question's id and the window, `[questions, 1 + SOURCE]`.
    spans:  positions of the first and the last token of the answer, `[questions, 2]`.
    """

    tokens: Tensor
    spans: Tensor


def ask(texts: Texts) -> Questions:
    """One question about each window in which a label has a single run; of several such labels, each in turn."""
    tokens, spans = [], []
    for number, (source, labels) in enumerate(zip(texts.sources, texts.labels.tolist(), strict=True)):
        if found := single_runs(labels):
            label, begin, end = found[number % len(found)]
            tokens.append(torch.cat((torch.tensor([FIRST_QUESTION + label]), source)))
            spans.append((begin + 1, end + 1))
    return Questions(torch.stack(tokens), torch.tensor(spans))


def single_runs(labels: Sequence[int]) -> list[tuple[int, int, int]]:
    """The labels that have one run, which the window does not cut, with its first and last position."""
    changes = [place for place in range(1, len(labels)) if labels[place] != labels[place - 1]]
    runs = [(labels[begin], begin, end - 1) for begin, end in zip([0, *changes], [*changes, len(labels)], strict=True)]
    every = [label for label, _, _ in runs]
    return [run for run in runs[1:-1] if run[0] in KINDS and every.count(run[0]) == 1]


def exact_match(encoder: pairform.Model, fitted: Questions, tested: Questions, seed: int, steps: int = STEPS) -> float:
    """The share of questions whose answer an encoder finds, fine-tuned on others. It is not changed.

    seed: of the new head and of the order of the questions.
    """
    model, _ = pairform.carry(encoder, patch={"head": {"name": "span"}}, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    order = torch.Generator().manual_seed(seed)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate(SCHEDULE, step, steps)
        rows = torch.randint(len(fitted.tokens), (BATCH,), generator=order)
        loss = model(fitted.tokens[rows], labels=fitted.spans[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = [model(tokens).logits.argmax(1) for tokens in torch.split(tested.tokens, ROWS)]
    return float((torch.cat(found) == tested.spans).all(1).double().mean())
