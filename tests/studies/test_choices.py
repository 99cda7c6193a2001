"""Choices: their likelihoods are those of transformers' models."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pairform
from pairform.registry import PairformError
from pairform.training.data.batches import Ids
from tests.checkpoints import gemma2, t5gemma
from tests.parity.compare import reference
from tests.studies.measuring import BYTES, measured, text_study, write_lines

QUESTIONS = [
    {"source": "two and two", "choices": ["four", "five", "a hundred"], "answer": 0},
    {"source": "b", "choices": ["b", "bb"], "answer": 1},
    {"source": "the colour of the sky", "choices": ["x", "blue"], "answer": 1},
]
BOS = 2


def likelihoods(theirs: torch.nn.Module, ids: Ids, source: str, choice: str, end: bool, alone: bool) -> list[float]:
    """The log-likelihood of each token of a choice, by transformers, without padding."""
    read, wanted = ([ids.free[byte] for byte in text.encode()] for text in (source, choice))
    wanted += [ids.end] if end else []
    with torch.no_grad():
        if alone:
            logits = theirs(input_ids=torch.tensor([[*read, BOS, *wanted]])).logits[0, len(read) : -1]
        else:
            begun = torch.tensor([[BOS, *wanted[:-1]]])
            logits = theirs(input_ids=torch.tensor([read]), decoder_input_ids=begun).logits[0]
    scores = logits.double().log_softmax(-1)
    return [scores[place, token].item() for place, token in enumerate(wanted)]


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("alone", [False, True], ids=["pair", "alone"])
def test_log_likelihoods_are_those_of_transformers(alone: bool, end: bool, tmp_path: Path) -> None:
    """Of padded batches, by the study's own tokens, with and without the end token."""
    folder = tmp_path / "model"
    sizes: dict[str, Any] = {"vocab_size": BYTES}
    theirs = reference(gemma2(folder, **sizes) if alone else t5gemma(folder, encoder=sizes, decoder=sizes)).eval()
    write_lines(tmp_path / "q.jsonl", QUESTIONS)
    change = {"base": str(folder), "variants": {"base": {}}}
    file = text_study(tmp_path, [{"name": "choices", "file": "q.jsonl", "end": end}], change)
    model, found = measured(file, pairform.load(folder))
    ids = Ids.of(model.spec)
    hits, normalized, right = [], [], []
    for question in QUESTIONS:
        texts: Any = question["choices"]
        scores = [likelihoods(theirs, ids, str(question["source"]), text, end, alone) for text in texts]
        sums, means = [sum(each) for each in scores], [sum(each) / len(each) for each in scores]
        hits.append(sums.index(max(sums)) == question["answer"])
        normalized.append(means.index(max(means)) == question["answer"])
        right.append(scores[int(str(question["answer"]))])
    expected = {
        "choices.accuracy": sum(hits) / 3,
        "choices.normalized_accuracy": sum(normalized) / 3,
        "choices.log_likelihood": sum(map(sum, right)) / 3,
        "choices.token_log_likelihood": sum(map(sum, right)) / sum(map(len, right)),
    }
    assert found == pytest.approx(expected, rel=1e-5)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "one choice": ({"choices": ["a"]}, "line 2: choices: found ['a'], expected a list of two or more texts"),
    "no text": ({"choices": ["a", 1]}, r"line 2: found int in the field 'choices[1]'"),
    "an answer outside": ({"answer": 2}, "line 2: answer: found 2, expected the place of the right choice, from 0 to 1"),
    "a letter": ({"answer": "A"}, "line 2: answer: found 'A'"),
    "a truth value": ({"answer": True}, "line 2: answer: found True"),
    "no source": ({"source": ""}, "line 2: found no token in the field 'source'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_name_file_and_line(case: str, tmp_path: Path) -> None:
    change, words = WRONG[case]
    good = {"source": "a", "choices": ["b", "c"], "answer": 0}
    write_lines(tmp_path / "q.jsonl", [good, good | change])
    with pytest.raises(PairformError) as caught:
        measured(text_study(tmp_path, [{"name": "choices", "file": "q.jsonl"}]))
    assert f"{tmp_path / 'q.jsonl'}: {words}" in str(caught.value)
    assert "variants." not in str(caught.value), "it is wrong for all of them"
