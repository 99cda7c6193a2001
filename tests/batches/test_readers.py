"""How windows and pairs become rows: pairs, bos tokens, joined documents, bytes."""

from collections import Counter

import numpy as np
import pytest

import pairform
from pairform.training.data.batches import Ids
from pairform.training.data.stream import Batches
from tests.batches.memory import ALONE, ENCODER, END, SEPARATE, MemoryStream, batches, documents, examples, objective, pairs

FIXED = objective("prefix_lm", source=24, target=24)


@pytest.mark.parametrize("spec", [SEPARATE, ALONE])
def test_pairs_fill_the_batch_and_come_once_in_an_epoch(spec: pairform.ModelSpec) -> None:
    some = pairs(400)
    run = batches(spec, objective("pairs", source=40, target=20), some, batch=16 * 60, micro=4)
    made = [run.batch(step) for step in range(400 // run.draws)]
    assert run.rows == 16
    assert run.draws > 25, "several pairs a row"
    found = [pair for batch in made for pair in examples(batch)]
    assert len(found) == len(made) * run.draws
    mean = np.mean([batch.tokens for batch in made])
    starts = 0 if spec is SEPARATE else run.draws
    assert mean - starts == pytest.approx(16 * 60, rel=0.05)
    if spec is SEPARATE:
        read = Counter((len(source), len(target) - 1, source[0]) for source, target in found)
        there = Counter((len(source), len(target), int(source[0])) for source, target in some.pairs)
        assert not read - there, "none twice"
        assert all(target == [source[0]] * (len(target) - 1) + [END] for source, target in found)
    else:
        for source, labels in found:
            answer = [token for token in labels if token >= 0]
            assert answer[-1] == END
            assert labels == [-100] * (len(source) - len(answer)) + source[-len(answer) :]
            assert source[-len(answer) - 1] == 2, "the start token, and no loss on the question"


def test_what_begins_documents_stands_before_them_only() -> None:
    stream = MemoryStream(documents([30, 100, 7]))
    for spec in (SEPARATE, ALONE, ENCODER):
        of = FIXED if spec is SEPARATE else objective("causal_lm" if spec is ALONE else "masked", window=48)
        run = batches(spec, of, stream, bos=True, batch=2 * 48)
        for step in range(6):
            stream.read.clear()
            batch = run.batch(step)
            parts = stream.parts()
            wanted = Counter(
                part.starts for part in parts if len(part.tokens) + part.ends * (spec is not ENCODER) > (spec is not ENCODER)
            )
            found = examples(batch)
            assert Counter(source[0] == 2 for source, _ in found) == wanted
            assert all(2 not in source[1:] for source, _ in found)
            if spec is ALONE:
                assert all(labels[0] == -100 and labels[1:] == source[1:] for source, labels in found)


def test_every_pair_begins_with_the_bos_token() -> None:
    for spec in (SEPARATE, ALONE):
        for bos in (True, False):
            found = examples(batches(spec, objective("pairs", source=40, target=20), pairs(50), bos=bos).batch(0))
            assert all((source[0] == 2) == bos for source, _ in found)


def test_joined_documents_are_one_text_with_their_ends() -> None:
    stream = MemoryStream(documents([5] * 100))
    run = batches(SEPARATE, FIXED, stream, join=True)
    stream.read.clear()
    found = examples(run.batch(0))
    windows = [stream.window(begin, end) for begin, end in stream.read if end - begin == 48]
    assert len(found) == 8
    assert Counter(map(str, windows)) - Counter(str(source + target) for source, target in found) == Counter()
    assert all(len(source) == len(target) == 24 and END in source for source, target in found)


def test_bytes_become_the_models_ids() -> None:
    spec = pairform.patch(SEPARATE, {"vocabulary": 300})
    text = np.frombuffer(b"any text, as bytes" * 20, np.uint8).astype(np.int32)
    run = Batches(spec, FIXED, [MemoryStream([text])], None, batch=96, micro=2, seed=0)
    free = {token: byte for byte, token in enumerate(Ids.of(spec).free)}
    found = [bytes(free[token] for token in source + target if token != END) for source, target in examples(run.batch(0))]
    assert all(each in bytes(text.tolist()) for each in found)
    assert sum(map(len, found)) > 80
