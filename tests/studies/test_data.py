"""What trials learn from: tasks, text, and the means over seeds that come out."""

import functools
import gzip
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pairform
from pairform.experiments.study.planning import read_study
from pairform.experiments.study.spec import StudySpec
from pairform.training.data.batches import Example, Ids, collate, longest
from pairform.training.data.objectives import Marks, PrefixLM, SpanCorruption
from pairform.training.data.objectives.denoising import cut
from tests.studies.small_study import STUDY, lines, run, write_study
from tests.tokenizers_small import tokenizer


def base_of(study: StudySpec) -> pairform.ModelSpec:
    assert not isinstance(study.base, str), "written out when it was read"
    return pairform.load_spec(study.base)


def examples(folder: Path, data: dict[str, Any], vocabulary: int = 400) -> tuple[list[Example], list[Example], tuple[int, int]]:
    """A batch of training, the validation set and the lengths of some data."""
    study = read_study(write_study(folder, {"base": {"vocabulary": vocabulary}}))
    file = write_study(folder, {"data": None})
    document = json.loads(file.read_text()) | {"base": study.base, "data": data}
    file.write_text(json.dumps(document))
    study = read_study(file)
    opened = study.data.gather(folder).open(base_of(study))
    return opened.train(0, 0, 64), opened.validation(), opened.lengths


END = 1
TASKS: dict[str, dict[str, Any]] = {
    "copy": {"symbols": 5, "length": [1, 6]},
    "reverse": {"symbols": 5, "length": [2, 6]},
    "sort": {"symbols": 5, "length": [2, 6]},
    "associative_recall": {"keys": 5, "values": 3, "pairs": 4},
    "lookup": {"symbols": 6, "records": 3, "width": 2, "length": 20},
}


def expected(name: str, source: list[int]) -> list[int]:
    """The target by another way than the task's."""
    if name == "associative_recall":
        return [dict(zip(source[:-1:2], source[1::2], strict=False))[source[-1]]]
    if name == "lookup":
        place = source.index(source[-1])
        return source[place + 1 : place + 3]
    return {"copy": source, "reverse": [*reversed(source)], "sort": sorted(source)}[name]


@pytest.mark.parametrize("name", TASKS)
def test_targets_follow_from_their_sources(name: str, tmp_path: Path) -> None:
    train, validation, lengths = examples(tmp_path, {"name": name, "validation": 64} | TASKS[name])
    assert train != validation
    for source, target in train + validation:
        assert target == [*expected(name, source), END]
        assert not {0, 1, 2} & {*source, *target[:-1]}
    longest = [max(len(example[side]) for example in train + validation) for side in (0, 1)]
    assert tuple(longest) == lengths


def test_tasks_draw_every_symbol_length_and_place(tmp_path: Path) -> None:
    """So many examples that each is among them: symbols are the lowest free ids, from 3 on."""

    def drawn(name: str) -> list[Example]:
        return examples(tmp_path, {"name": name, "validation": 600} | TASKS[name])[1]

    sources = [source for source, _ in drawn("copy")]
    assert {token for source in sources for token in source} == {*range(3, 8)}
    assert {len(source) for source in sources} == {*range(1, 7)}
    found = drawn("associative_recall")
    assert {token for source, _ in found for token in source[::2]} == {*range(3, 8)}
    assert {token for source, _ in found for token in source[1::2]} == {*range(8, 11)}
    assert all(len({*source[:-1:2]}) == 4 for source, _ in found), "no key twice"
    assert {source.index(source[-1]) for source, _ in found} == {0, 2, 4, 6}
    found = drawn("lookup")
    keys, noise = {*range(3, 6)}, {*range(6, 12)}
    places = [[place for place, token in enumerate(source[:-1]) if token in keys] for source, _ in found]
    assert all({*source} & keys == keys and {*source} <= keys | noise for source, _ in found)
    assert all(len(some) == 3 for some in places), "each key once"
    assert {token for (source, _), some in zip(found, places, strict=True) for token in source[: some[0]]} == noise
    assert {token for _, target in found for token in target[:-1]} == noise
    assert (min(map(min, places)), max(map(max, places))) == (0, 20 + 2 * 3)
    assert {source[-1] for source, _ in found} == keys


def test_a_task_has_sizes_of_its_own_where_a_study_gives_none() -> None:
    """The examples of studies that leave them out depend on these numbers."""
    sizes: dict[str, tuple[int, tuple[int, int]]] = {
        "copy": (16, (16, 16 + 1)),
        "associative_recall": (16 + 16, (2 * 8 + 1, 1 + 1)),
        "lookup": (16 + 4, (256 + 4 * (1 + 3) + 1, 3 + 1)),
    }
    for name, wanted in sizes.items():
        task: Any = StudySpec.read(STUDY | {"data": {"name": name}}).data
        assert (task.needed, task.lengths, task.validation) == (*wanted, 256)
        if name == "copy":
            some = task.open(pairform.load_spec("t5gemma-s-s")).train(0, 0, 300)
            assert {len(source) for source, _ in some} == {*range(4, 17)}


def test_a_step_draws_its_batch_anew_and_each_seed_its_own(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path))
    opened = study.data.gather(tmp_path).open(base_of(study))
    batches = [opened.train(seed, step, 4) for seed in (0, 1) for step in (0, 1)]
    assert all(batches.count(batch) == 1 for batch in batches)
    assert opened.train(1, 0, 4) == batches[2]


def test_text_and_pairs_draw_each_batch_anew_and_each_seed_its_own(tmp_path: Path) -> None:
    for made in (text, pair_files):
        folder = tmp_path / made.__name__
        file = write_study(folder, {"base": {"vocabulary": 400}, "data": None})
        file.write_text(json.dumps(json.loads(file.read_text()) | {"data": made(folder)}))
        study = read_study(file)
        opened = study.data.gather(folder).open(base_of(study))
        batches = [opened.train(seed, step, 4) for seed in (0, 1) for step in (0, 1)]
        assert all(batches.count(batch) == 1 for batch in batches)
        assert opened.train(1, 0, 4) == batches[2]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_not_measured_on_what_is_trained_on(name: str, tmp_path: Path) -> None:
    """Examples of so many kinds that none is drawn twice by chance."""
    fields = {"symbols": 200, "length": [9, 9]} if "length" in TASKS[name] and name != "lookup" else {"validation": 64}
    wide = {"associative_recall": {"keys": 150, "values": 100, "pairs": 20}, "lookup": {"symbols": 200, "length": 40}}
    study = read_study(write_study(tmp_path, {"base": {"vocabulary": 400}}))
    contents = StudySpec.read(study.document() | {"data": {"name": name} | wide.get(name, fields)}).data.gather(tmp_path)
    opened = contents.open(base_of(study))
    held_out = {tuple(source) for source, _ in opened.validation()}
    trained = [tuple(source) for seed in range(3) for step in range(3) for source, _ in opened.train(seed, step, 64)]
    assert len(held_out) > 60
    assert held_out.isdisjoint(trained)
    assert len(set(trained)) == len(trained)


def test_a_decoder_alone_is_asked_for_the_target_behind_the_source() -> None:
    pair, alone = pairform.load_spec("t5gemma-s-s"), pairform.load_spec("gemma-2-2b")
    some: list[Example] = [([5, 6, 7], [8, 1]), ([9], [1])]
    made = collate(some, pair)
    assert made["input_ids"].tolist() == [[5, 6, 7], [9, 0, 0]]
    assert made["labels"].tolist() == [[8, 1], [1, -100]]
    made = collate(some, alone)
    assert made["input_ids"].tolist() == [[5, 6, 7, 2, 8, 1], [9, 2, 1, 0, 0, 0]]
    assert made["labels"].tolist() == [[-100, -100, -100, -100, 8, 1], [-100, -100, 1, -100, -100, -100]]
    assert torch.equal(made["attention_mask"].sum(1), torch.tensor([6, 3]))


def test_batches_are_padded_to_given_lengths() -> None:
    some: list[Example] = [([5, 6, 7], [8, 1]), ([9], [1])]
    made = collate(some, pairform.load_spec("t5gemma-s-s"), (4, 3))
    assert made["input_ids"].tolist() == [[5, 6, 7, 0], [9, 0, 0, 0]]
    assert made["labels"].tolist() == [[8, 1, -100], [1, -100, -100]]
    made = collate(some, pairform.load_spec("gemma-2-2b"), (4, 3))
    assert made["input_ids"].tolist() == [[5, 6, 7, 2, 8, 1, 0, 0], [9, 2, 1, 0, 0, 0, 0, 0]]
    assert made["labels"].shape == made["attention_mask"].shape == (2, 8)
    assert made["attention_mask"].sum(1).tolist() == [6, 3]


def text(folder: Path, **fields: Any) -> dict[str, Any]:
    (folder / "train.txt").write_text("".join(f"{number} is a number. " for number in range(200)))
    (folder / "held.jsonl").write_text("".join(json.dumps({"body": f"Zahl {number} ü"}) + "\n" for number in range(60)))
    held_out = {"held_out": ["*.jsonl"], "field": "body", "validation": 32}
    return {"name": "text", "train": ["*.txt", "*.jsonl"]} | held_out | fields


@functools.cache
def bytes_of_ids() -> dict[int, int]:
    return {token: byte for byte, token in enumerate(Ids.of(pairform.load_spec("t5gemma-s-s")).free[:256])}


def decoded(tokens: list[int]) -> str:
    return bytes(bytes_of_ids()[token] for token in tokens if token != END).decode("utf-8", "replace")


def test_a_prefix_is_followed_by_its_text(tmp_path: Path) -> None:
    objective = {"name": "prefix_lm", "source": 12, "target": 20}
    train, validation, lengths = examples(tmp_path, text(tmp_path, objective=objective))
    assert lengths == (12, 20)
    assert all((len(source), len(target)) == lengths for source, target in train + validation)
    content = (tmp_path / "train.txt").read_text()
    assert all(decoded(source + target) in content for source, target in train)
    assert all("number" not in decoded(source + target) for source, target in validation)


def restored(source: list[int], target: list[int]) -> list[int]:
    """The window: each sentinel of the source with what stands behind it in the target."""
    taken: dict[int, list[int]] = {}
    sentinels = [token for token in target if token in source and token > 258]
    for token in target[:-1]:
        if token in sentinels:
            taken[token] = []
        else:
            taken[list(taken)[-1]].append(token)
    return [token for place in source for token in taken.get(place, [place])]


def test_spans_are_taken_out_and_can_be_put_back(tmp_path: Path) -> None:
    data = text(tmp_path, objective={"name": "span_corruption", "window": 64})
    train, _, lengths = examples(tmp_path, data)
    content = (tmp_path / "train.txt").read_text()
    assert all(decoded(restored(source, target)) in content for source, target in train)
    kinds = {
        (len(target) - 1 - len({*source} & {*target} - {*range(259)}), len({*source} - {*range(259)}))
        for source, target in train
    }
    assert kinds == {(10, 3), (32, 3), (10, 1), (32, 1), (48, 1)}
    assert lengths == (64 - 10 + 3, 48 + 1 + 1)


def test_denoisers_are_drawn_by_their_weights() -> None:
    """UL2's mixture is 1 : 1 : 1 : 1 : 4; each kind takes out a number of tokens of its own, in so many spans."""
    objective, numbers = SpanCorruption(name="span_corruption", window=64), np.random.default_rng(0)
    marks = Marks(END, np.arange(100, 130))
    found: Counter[tuple[int, int]] = Counter()
    for _ in range(1600):
        _, target = objective.example(np.full(64, 50), numbers, marks)
        found[target.count(50), len(target) - 1 - target.count(50)] += 1
    shares = {(10, 3): 1, (32, 3): 1, (10, 1): 1, (32, 1): 1, (48, 1): 4}  # round(64 x rate) tokens
    assert found.keys() == shares.keys()
    for kind, share in shares.items():
        assert found[kind] / 1600 == pytest.approx(share / 8, abs=0.035), kind


def test_spans_of_long_windows_are_counted_as_by_hand() -> None:
    """Of 2,048 tokens: 307 in spans of 3 and of 32, 1,024 in spans of 12 and of 32, and 1,536 in one."""
    counts = [(307, 102), (1024, 85), (307, 10), (1024, 32), (1536, 1)]
    objective = SpanCorruption(name="span_corruption", window=2048)
    assert objective.lengths == [(2048 - taken + spans, taken + spans + 1) for taken, spans in counts]
    assert objective.needed == 102
    rare, most, many, wide = {"rate": 0.01}, {"rate": 0.99}, {"span": 0.1, "rate": 0.5}, {"span": 90.0, "rate": 0.5}
    short = SpanCorruption.read({"name": "span_corruption", "window": 4, "denoisers": [rare, most, many, wide]})
    assert short.lengths == [(3 + 1, 1 + 1 + 1), (1 + 1, 3 + 1 + 1), (2 + 2, 2 + 2 + 1), (2 + 1, 2 + 1 + 1)]


def test_a_length_is_cut_into_all_sums_of_so_many_parts() -> None:
    numbers = np.random.default_rng(0)
    found = Counter(tuple(cut(6, 3, numbers)) for _ in range(1000))
    assert found.keys() == {parts for parts in itertools.product(range(1, 7), repeat=3) if sum(parts) == 6}
    assert min(found.values()) > 60, "each as likely: 100 of 1,000"


def refused_data(data: dict[str, Any]) -> bool:
    try:
        StudySpec.read(STUDY | {"data": data}).data.gather(Path())
    except pairform.PairformError:
        return True
    return False


def test_sizes_that_leave_nothing_to_draw_are_refused() -> None:
    for name, sizes, more in (
        ("copy", {"length": [4, 4]}, {"length": [4, 3]}),
        ("associative_recall", {"keys": 4, "pairs": 4}, {"keys": 4, "pairs": 5}),
    ):
        assert not refused_data({"name": name} | sizes)
        assert refused_data({"name": name} | more)
    windows = [SpanCorruption(name="span_corruption", window=window) for window in (1, 2)]
    assert [len(list(window.check())) for window in windows] == [1, 0]


def test_a_split_is_drawn_for_each_window(tmp_path: Path) -> None:
    objective = {"name": "prefix_lm", "source": 4, "target": 8, "split": "uniform"}
    train, validation, lengths = examples(tmp_path, text(tmp_path, objective=objective))
    assert lengths == (11, 11)
    assert {len(source) for source, _ in train + validation} == {*range(1, 12)}
    content = (tmp_path / "train.txt").read_text()
    assert all(len(source + target) == 12 and decoded(source + target) in content for source, target in train)
    spec = pairform.load_spec("gemma-2-2b")
    assert longest(spec, PrefixLM.read(objective).lengths) in ((1, 11), (11, 1)), "12 tokens and a start token"


def test_sentinels_are_tokens_of_a_pattern(tmp_path: Path) -> None:
    """Here of the tokenizer's own words, of which there is no id to spare."""
    tokenizer(tmp_path)
    words = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    objective = {"name": "ul2", "window": 32, "sentinels": "word{}"}
    train, _, _ = examples(tmp_path, text(tmp_path, tokenizer="tokenizer.json", objective=objective), vocabulary=len(words))
    assert all(target[0] == words["word0"] and target[0] in source for source, target in train)
    objective["sentinels"] = "extra{}"
    with pytest.raises(pairform.PairformError, match=r"sentinels: found 0 tokens of the pattern 'extra\{\}'.*at least 2"):
        examples(tmp_path, text(tmp_path, tokenizer="tokenizer.json", objective=objective), vocabulary=len(words))


def test_sentinels_are_ids_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    known = set(json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"].values())
    data = text(tmp_path, tokenizer="tokenizer.json", objective={"name": "span_corruption", "window": 32})
    train, validation, _ = examples(tmp_path, data, vocabulary=len(known) + 20)
    for source, target in train + validation:
        sentinels = set(source) & set(target) - known
        assert target[0] in sentinels
        assert len(sentinels) == sum(token not in known for token in source) > 0
    with pytest.raises(pairform.PairformError, match=r"found 1 ids that no text has.*at least 2, as sentinels"):
        examples(tmp_path, data, vocabulary=len(known) + 1)


def test_a_tokenizers_file_gives_the_ids(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    data = text(tmp_path, tokenizer="tokenizer.json", objective={"name": "prefix_lm", "source": 4, "target": 4})
    train, _, _ = examples(tmp_path, data)
    assert all(len(source) == len(target) == 4 for source, target in train)


def pair_files(folder: Path, **fields: Any) -> dict[str, Any]:
    """Questions and answers: a file to learn from, and one packed by gzip to measure on."""
    train = [{"ask": f"{number} + 1", "answer": str(number + 1)} for number in range(50)]
    held_out = [{"ask": f"{number} + 1", "answer": str(number + 1), "from": "held out"} for number in range(50, 60)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, train)) + "\n\n")
    with gzip.open(folder / "held.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, held_out)))
    named = {"source": "ask", "target": "answer", "lengths": [6, 3]}
    return {"name": "pairs", "train": ["*.jsonl"], "held_out": ["held.*"]} | named | fields


def test_pairs_are_learnt_from_as_they_stand_and_measured_on_each_once(tmp_path: Path) -> None:
    train, validation, lengths = examples(tmp_path, pair_files(tmp_path))
    assert lengths == (6, 3)
    read = [(decoded(source), decoded(target), target[-1]) for source, target in validation]
    assert sorted(read) == [(f"{number} + 1", str(number + 1), END) for number in range(50, 60)]
    assert all(int(decoded(target)) == int(decoded(source).split()[0]) + 1 <= 50 for source, target in train)
    assert len(train) == 64


def test_what_is_longer_than_its_length_is_cut_off_and_does_not_end(tmp_path: Path) -> None:
    _, validation, _ = examples(tmp_path, pair_files(tmp_path, lengths=[4, 2], validation=3))
    assert [(len(source), len(target)) for source, target in validation] == [(4, 2)] * 3
    assert END not in [target[-1] for _, target in validation]


def test_files_that_changed_are_named_and_not_mixed_with_what_they_were(tmp_path: Path) -> None:
    bytes_ = {"base": {"vocabulary": 300}, "training": {"steps": 0}, "variants": {"merged": None}}
    data = {"data": pair_files(tmp_path) | {"symbols": None, "length": None}}
    first = run(tmp_path, bytes_ | data | {"seeds": [0]})
    kept = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(kept.replace("7 + 1", "7 + 2"))
    with pytest.raises(pairform.PairformError, match=r"found trials on other contents of train\.jsonl"):
        run(tmp_path, bytes_ | data)
    (tmp_path / "train.jsonl").write_text(kept)
    grown = run(tmp_path, bytes_ | data)
    assert [trial.name for trial in grown] == ["separate-seed0", "separate-seed1"]
    assert grown[0] == first[0]


def test_a_model_learns_from_text(tmp_path: Path) -> None:
    data = text(tmp_path, objective={"name": "prefix_lm", "source": 8, "target": 8}) | {"symbols": None, "length": None}
    training = {"steps": 20, "evaluate_every": 1, "optimizer": {"learning_rate": 0.02}, "dtype": "bfloat16"}
    (trial,) = run(
        tmp_path, {"data": data, "base": {"vocabulary": 300}, "training": training, "variants": {"merged": None}, "seeds": [0]}
    )
    assert trial.status == "done", trial.error
    losses = [line["loss"] for line in lines(tmp_path, trial.name) if line["split"] == "valid"]
    assert losses[-1] < losses[0] - 0.1
