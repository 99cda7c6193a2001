"""The linear probe: its classifier against scikit-learn's and the conditions of an optimum, its hidden states by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pairform
from pairform.experiments.evaluation.linear_probe import fit
from pairform.registry import PairformError
from pairform.training.data.batches import Ids
from tests.studies.measuring import measured, text_study, write_lines

L2 = 0.03


def random_problem(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = np.random.default_rng(0)
    states = numbers.normal(size=(60, 5))
    labels = (states @ numbers.normal(size=(5, classes)) + numbers.gumbel(size=(60, classes))).argmax(1)
    return torch.tensor(states), torch.tensor(labels)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_classifier_is_at_its_optimum(classes: int) -> None:
    """Where the gradient of mean cross-entropy plus penalty vanishes: there is one such place for the weights."""
    states, labels = random_problem(classes)
    weight, bias = fit(states, labels, classes, L2)
    residuals = (states @ weight.T + bias).softmax(1) - torch.nn.functional.one_hot(labels, classes)
    assert (residuals.T @ states / len(states) + L2 * weight).abs().max() < 1e-6
    assert residuals.mean(0).abs().max() < 1e-6


def test_the_classifier_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    states, labels = random_problem(4)
    weight, _ = fit(states, labels, 4, L2)
    theirs = linear_model.LogisticRegression(C=1 / (L2 * len(states)), tol=1e-10, max_iter=10_000).fit(states, labels)
    assert np.abs(theirs.coef_ - weight.numpy()).max() < 1e-5


def test_classes_that_can_be_separated_are(tmp_path: Path) -> None:
    """Each source is one symbol, whose hidden state is a point of its own."""
    rows = [{"text": letter, "kind": number % 3} for number, letter in enumerate("abcdefghi")]
    write_lines(tmp_path / "a.jsonl", rows)
    probe = {"name": "linear_probe", "train": "a.jsonl", "test": "a.jsonl", "source": "text", "target": "kind", "l2": 1e-9}
    _, found = measured(text_study(tmp_path, [probe]))
    assert found["linear_probe.accuracy"] == 1
    assert 0 <= (found["linear_probe.loss"] or 0) < 0.01


ALONE: dict[str, Any] = {
    "assembly": "decoder_only",
    "encoder": None,
    "tie_embeddings": False,
    "head": {"tie": "decoder"},
    "decoder": {"layer": {"branches": {"cross_attention": None}}},
}


@pytest.mark.parametrize("pooling", ["mean", "words"])
@pytest.mark.parametrize("alone", [False, True], ids=["pair", "alone"])
def test_hidden_states_are_those_of_each_source_alone(pooling: str, alone: bool, tmp_path: Path) -> None:
    """Whatever the padding: the classifier is fitted here on states of sources that are read one by one."""
    sources = [["ab", "c"], ["a"], ["bcd", "a", "b"], ["d", "dd"], ["caba", "b"]]
    labels = [[len(word) % 2 for word in words] for words in sources]
    texts = [" ".join(words) for words in sources]
    kinds = [0, 1, 1, 0, 1]
    rows: list[dict[str, Any]]
    if pooling == "mean":
        rows = [{"source": text, "label": kind} for text, kind in zip(texts, kinds, strict=True)]
    else:
        rows = [{"source": words, "label": own} for words, own in zip(sources, labels, strict=True)]
    write_lines(tmp_path / "a.jsonl", rows)
    probe = {"name": "linear_probe", "train": "a.jsonl", "test": "a.jsonl", "pooling": pooling, "l2": 0.1}
    model, found = measured(text_study(tmp_path, [probe], {"variants": {"one": ALONE if alone else {}}}))
    ids, states, classes = Ids.of(model.spec), [], []
    for words, own, text, kind in zip(sources, labels, texts, kinds, strict=True):
        read = torch.tensor([[ids.free[byte] for byte in text.encode()]])
        with torch.no_grad():
            if alone:
                hidden = model(read).last_hidden_state[0].double()
            else:
                hidden = model(read, decoder_input_ids=torch.tensor([[2]])).encoder_last_hidden_state[0].double()
        if pooling == "mean":
            states.append(hidden.mean(0))
            classes.append(kind)
            continue
        begin = 0
        for word, label in zip(words, own, strict=True):
            end = begin + len(word) + bool(begin)  # with the space before it
            states.append(hidden[begin:end].mean(0))
            classes.append(label)
            begin = end
    table, wanted = torch.stack(states), torch.tensor(classes)
    table = (table - table.mean(0)) / table.std(0, correction=0)
    weight, bias = fit(table, wanted, 2, 0.1)
    scores = table @ weight.T + bias
    assert found["linear_probe.accuracy"] == (scores.argmax(1) == wanted).double().mean().item()
    expected = torch.nn.functional.cross_entropy(scores, wanted).item()
    assert found["linear_probe.loss"] == pytest.approx(expected, rel=1e-3)


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown class": ({"label": "z"}, {}, "line 1: label: found the class 'z'"),
    "no class": ({"label": None}, {}, "line 1: label: found None, expected a class"),
    "words without classes": ({"source": ["a", "b"], "label": [1]}, {"pooling": "words"}, "expected a list of 2 classes"),
    "an empty word": ({"source": ["", "b"], "label": [0, 1]}, {"pooling": "words"}, "line 1: found no token in source[0]"),
    "a text for words": ({"source": "a b", "label": [0, 1]}, {"pooling": "words"}, "expected a list of words"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_file_and_line(case: str, tmp_path: Path) -> None:
    row, settings, words = WRONG[case]
    pooled = settings.get("pooling") == "words"
    good: list[dict[str, Any]] = [{"source": ["a", "b"], "label": [0, 1]}] if pooled else [{"source": "a", "label": 0}] * 2
    write_lines(tmp_path / "a.jsonl", good if pooled else [*good, {"source": "b", "label": 1}])
    write_lines(tmp_path / "b.jsonl", [{"source": "a", "label": 0} | row])
    probe = {"name": "linear_probe", "train": "a.jsonl", "test": "b.jsonl", **settings}
    with pytest.raises(PairformError) as caught:
        measured(text_study(tmp_path, [probe]))
    assert str(tmp_path / "b.jsonl") in str(caught.value)
    assert words in str(caught.value)


def test_one_class_is_no_task(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"source": "a", "label": 0}])
    probe = {"name": "linear_probe", "train": "a.jsonl", "test": "a.jsonl"}
    with pytest.raises(pairform.PairformError, match=r"measures\[0\]\.train: found 1 classes"):
        measured(text_study(tmp_path, [probe]))
