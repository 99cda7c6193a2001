"""Inputs at random, by kind: each is a call of a public function and a text that says what it was given."""

import functools
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pairform
from pairform.experiments.study.contents import gather
from pairform.experiments.study.planning import plan_trials, read_study
from tests.fuzz import calls
from tests.fuzz.limits import WrongAnswerError
from tests.fuzz.mutations import VALUES, as_text, damage_folder, damaged, mutated
from tests.small_pairs import small_pair
from tests.studies.small_study import STUDY

Input = tuple[str, Callable[[], object]]
PRESETS = ("t5gemma-s-s", "gemma-2-2b", "t5gemma2-270m-270m", "t5-small", "qwen3-0.6b")
FEW = 64
"""Layers at most in a model that is laid out: what takes long because it is large is no fault."""


def spec(random: Random, folder: Path) -> Input:
    """A spec's file: a preset's short or expanded form, or a small pair's, changed."""
    preset = random.choice(PRESETS)
    document = random.choice((short(preset), short(preset), pairform.load_spec(preset).document(), small_pair().document()))
    os.mkfifo(folder / "pipe")
    file = folder / "spec.json"
    file.write_bytes(as_text(mutated(document, random, random.choice((1, 1, 2, 5))), random))

    def call() -> None:
        found = pairform.load_spec(file)
        if sum(stack.depth for stack in found.stacks.values()) <= FEW:
            pairform.inspect(found, source_length=8, target_length=8)
            pairform.diff(found, pairform.load_spec(found.document()))

    return f"{preset} changed: {file.read_bytes()[:300]!r}", call


def short(preset: str) -> dict[str, Any]:
    stack = {"depth": 2, "layer": {"branches": {"self_attention": {"mask": {"window": [4, 0]}}}}}
    spec_ = pairform.load_spec(preset)
    return {"extends": preset, "vocabulary": 97, **dict.fromkeys(spec_.stacks, stack)}


def patch(random: Random, folder: Path) -> Input:
    """A patch in memory, which may hold what JSON cannot say."""
    odd: tuple[Any, ...] = (*VALUES, {1, 2}, b"x", object(), {1: 2}, {None: 1}, (1, 2), 1j, Path("x"), pairform, lambda: 0)
    path = random.choice(("decoder.depth", "decoder.layer.norm", "vocabulary", "head", "encoder", "tokens", "cycle", ""))
    value = random.choice(odd)
    given: Any = value
    for key in reversed(path.split(".") if path else []):
        given = {key: given}

    def call() -> None:
        changed = pairform.patch(small_pair(), given)
        json.dumps(changed.document())

    return f"{path or 'patch'}: {type(value).__name__} {str(value)[:80]!r}", call


def study(random: Random, folder: Path) -> Input:
    """A study's file, changed; its trials are planned, not run."""
    data = (STUDY["data"], {"name": "text", "train": ["a.txt"], "held_out": ["b.txt"]}, {"name": "pairs", "train": ["*.jsonl"]})
    document = STUDY | {"data": random.choice(data), "grid": {"training.batch": [2, 4]}}
    (folder / "a.txt").write_text("some text to learn from " * 30)
    (folder / "b.txt").write_text("some text to measure on " * 30)
    (folder / "c.jsonl").write_text('{"source": "a", "target": "b"}\n')
    os.mkfifo(folder / "pipe")
    file = folder / "study.json"
    file.write_bytes(as_text(mutated(document, random, random.choice((1, 1, 2))), random))
    return f"study: {file.read_bytes()[:300]!r}", lambda: plan(file)


def plan(file: Path) -> None:
    found = read_study(file)
    contents = gather(found, file.parent)
    for trial in plan_trials(found, file.parent, contents):
        contents.open(pairform.load_spec(dict(trial.spec))).train(trial.seed, 0, trial.training.batch)


def data(random: Random, folder: Path) -> Input:
    """Data files of a study, damaged."""
    name, content = random.choice(
        (
            ("train.txt", b"some text to learn from\n" * 200),
            ("train.txt.gz", gzip.compress(b"some text to learn from\n" * 200)),
            ("train.jsonl", b'{"text": "some text to learn from", "source": "a b", "target": "b a"}\n' * 60),
            ("train.jsonl.gz", gzip.compress(b'{"text": "some text", "source": "a b", "target": "b a"}\n' * 60)),
        )
    )
    lines = (
        b'{"text": "\\ud800"}\n',
        b'{"text": 5}\n',
        b"[" * 5000 + b"\n",
        b'{"text": NaN}\n',
        b'{"text": "a", "text": "b"}\n',
    )
    match random.randrange(5):
        case 0:
            content = damaged(content, random)
        case 1:
            content = random.choice(lines) + content
        case 2:
            content = bomb() if name.endswith(".gz") else b"\x00" * 10**6
        case 3:
            content = content.replace(b"a", random.choice((b"\xff", b"\x1b[2J", "é".encode("utf-16"), b"\r\n", b'"')), 3)
        case _:
            content = random.choice((b"", b"\n\n", b"{}", b"\xef\xbb\xbf" + content, content[:5]))
    (folder / name).write_bytes(content)
    (folder / "held.txt").write_text("some text to measure on " * 30)
    (folder / "held.jsonl").write_text('{"source": "a", "target": "b"}\n')
    kind = random.choice(("text", "pairs")) if "jsonl" in name else "text"
    given = {"name": kind, "train": [name], "held_out": ["held.jsonl" if kind == "pairs" else "held.txt"]}
    document = STUDY | {"data": given, "base": STUDY["base"] | {"vocabulary": 300}}
    file = folder / "study.json"
    file.write_text(json.dumps(document))
    return f"{kind} out of {name}: {content[:80]!r}", lambda: plan(file)


QUESTION = {"source": "a b", "choices": ["c", "d"], "answer": 1}
MEASURES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"name": "choices", "file": "m.jsonl"}, QUESTION),
    ({"name": "linear_probe", "train": "p.jsonl", "test": "m.jsonl"}, {"source": "a b", "label": "x"}),
    (
        {"name": "linear_probe", "train": "p.jsonl", "test": "m.jsonl", "pooling": "words"},
        {"source": ["a", "b"], "label": ["x", "y"]},
    ),
    ({"name": "generation", "file": "m.jsonl"}, {"source": "a", "target": "b"}),
    ({"name": "length_extrapolation"}, {}),
)


def measures(random: Random, folder: Path) -> Input:
    """A study's measures and a line of their files, changed."""
    measure, row = random.choice(MEASURES)
    words = measure.get("pooling") == "words"
    labelled = [{"source": ["a"] if words else "a", "label": [kind] if words else kind} for kind in ("x", "y")]
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    changed = [json.dumps(row).encode(), as_text(mutated(row, random, random.choice((1, 1, 2))), random).replace(b"\n", b"")]
    (folder / "m.jsonl").write_bytes(b"\n".join(changed))
    (folder / "c.jsonl").write_text('{"source": "a", "target": "b"}\n')
    (folder / "d.jsonl").write_text('{"source": "a", "target": "b"}\n')
    given = {"name": "pairs", "train": ["c.jsonl"], "held_out": ["d.jsonl"]}
    document = STUDY | {"data": given, "base": STUDY["base"] | {"vocabulary": 300}}
    asked = mutated(measure, random, 1) if random.random() < 0.3 else measure
    file = folder / "study.json"
    file.write_text(json.dumps(document | {"measures": [asked]}))
    return f"measures {str(asked)[:200]} of {changed[1][:300]!r}", lambda: plan(file)


@functools.cache
def bomb() -> bytes:
    """Few bytes that unpack to many."""
    return gzip.compress(bytes(3 * 10**8), compresslevel=1)


def checkpoint(random: Random, folder: Path) -> Input:
    """A model's folder of ours or of transformers', damaged."""
    name = random.choice(sorted(path.name for path in folders().iterdir()))
    target = folder / name
    shutil.copytree(folders() / name, target)
    done = damage_folder(target, random)

    def call() -> None:
        model = pairform.load(target)
        if sum(stack.depth for stack in model.spec.stacks.values()) <= FEW and model.spec.vocabulary < 10_000:
            model(calls.ids(), **({} if model.encoder is None else {"decoder_input_ids": calls.ids(length=7)}))

    return f"{name}: {done}", call


@functools.cache
def folders() -> Path:
    """Folders of small models, written once for a process."""
    from tests import checkpoints

    root = Path(tempfile.mkdtemp(prefix="pairform-fuzz-"))
    checkpoints.gemma2(root / "gemma2", num_hidden_layers=2)
    checkpoints.gemma2(root / "gemma2-sharded", num_hidden_layers=2, shard="20KB")
    checkpoints.t5gemma(root / "t5gemma", encoder={"num_hidden_layers": 2}, decoder={"num_hidden_layers": 2})
    pairform.save(pairform.build(small_pair(), seed=0), root / "ours")
    pairform.save(pairform.build(small_pair(), seed=0), root / "ours-sharded", max_shard_size="20KB")
    return root


def forward(random: Random, folder: Path) -> Input:
    """A model's call with arguments exchanged."""
    kind, model = calls.any_model(random)
    given = calls.exchanged(calls.good(kind), calls.FORWARD, random)

    def call() -> None:
        output = model(**given)
        if output.logits is not None and not bool(output.logits.isfinite().all()):
            raise WrongAnswerError("logits that are not finite")
        if output.loss is not None and not bool(output.loss.isfinite().all()):
            raise WrongAnswerError("a loss that is not finite")

    return f"{kind}: {calls.shown(given)}", call


def generate(random: Random, folder: Path) -> Input:
    """Generation with arguments exchanged."""
    kind, model = calls.any_model(random)
    given = calls.exchanged(calls.prompt(kind), calls.GENERATE, random)

    def call() -> None:
        tokens = model.generate(**given)
        if int(tokens.max()) >= model.spec.vocabulary or int(tokens.min()) < 0:
            raise WrongAnswerError("tokens that are none")

    return f"{kind}: {calls.shown(given)}", call


KINDS: Mapping[str, Callable[[Random, Path], Input]] = {
    "spec": spec,
    "patch": patch,
    "study": study,
    "data": data,
    "measures": measures,
    "checkpoint": checkpoint,
    "forward": forward,
    "generate": generate,
}
