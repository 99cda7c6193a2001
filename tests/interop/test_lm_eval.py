"""lm-eval scores models of the bridge as they score when computed by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import pairform
import pairform.interop.transformers  # registers the classes
from tests.catalogue.places import model
from tests.interop.words import tokenizer

lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval")
CHOICES = ["cat", "dog", "bird", "runs", "sleeps and sings"]
QUESTIONS = ["the", "a", "the cat and the", "a dog", "the bird sings ? a cat", "a bird : the dog"]
DOCUMENTS = [{"question": question, "answer": place % len(CHOICES)} for place, question in enumerate(QUESTIONS)]


Scores = tuple[float, list[list[float]]]
"""The accuracy, and the log-probability of each choice after each question."""


def evaluated(language_model: Any, folder: Path) -> Scores:
    """Of a task of multiple choice on `DOCUMENTS`."""
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, DOCUMENTS)))
    task = {
        "task": "choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": CHOICES,
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    found = lm_eval.simple_evaluate(model=language_model, tasks=[task], log_samples=True, bootstrap_iters=0)
    sums = [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in found["samples"]["choices"]]
    return found["results"]["choices"]["acc,none"], sums


@torch.no_grad()
def by_hand(folder: Path) -> Scores:
    ours, words = pairform.load(folder), tokenizer()
    sums = []
    for document in DOCUMENTS:
        row = []
        for choice in CHOICES:
            source, target = (words(text)["input_ids"] for text in (document["question"], choice))
            if ours.encoder is None:
                logits = ours(torch.tensor([source + target])).logits[0, len(source) - 1 : -1]
            else:
                start = [ours.spec.tokens.first, *target[:-1]]
                logits = ours(torch.tensor([source]), decoder_input_ids=torch.tensor([start])).logits[0]
            row.append(logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum().item())
        sums.append(row)
    right = [row.index(max(row)) == document["answer"] for row, document in zip(sums, DOCUMENTS, strict=True)]
    return sum(right) / len(right), sums


@pytest.mark.parametrize("assembly", ["decoder_only", "encoder_decoder"])
def test_a_task_of_multiple_choice(assembly: str, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    pairform.save(pairform.build(pairform.load_spec(model(assembly)), seed=0), tmp_path / "model")
    kind = transformers.AutoModelForCausalLM if assembly == "decoder_only" else transformers.AutoModelForSeq2SeqLM
    backend = "causal" if assembly == "decoder_only" else "seq2seq"
    loaded = kind.from_pretrained(tmp_path / "model")
    found = evaluated(HFLM(pretrained=loaded, tokenizer=tokenizer(), backend=backend, batch_size=4), tmp_path)
    accuracy, sums = by_hand(tmp_path / "model")
    torch.testing.assert_close(torch.tensor(found[1]), torch.tensor(sums), rtol=1e-5, atol=1e-5)
    assert found[0] == accuracy
