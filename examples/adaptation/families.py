"""A ModernBERT encoder with a Gemma 3 decoder, each with a tokenizer of its own, beside a T5Gemma-shaped pair.

On the sources of Python's standard library, a ModernBERT is pretrained with masked language modelling, and a Gemma 2 and a
Gemma 3 with causal language modelling. Each is written in the transformers format and converted from there. Both pairs are
adapted with the same recipe on the same text. Run it from the repository's root:

    python -m examples.adaptation.families --out families [--jobs 2] [--quick]

After an interruption, the same command continues. The results are in
`families/results.json`, and as a table in `families/results.md`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import pairform
from examples.adaptation.run import HERE, MODELS, RUNS, Results, from_command_line, losses, pairform_command, train, wait
from examples.adaptation.texts import CORPUS, write_texts

VOCABULARY = 1024
SPECIAL = {"encoder": ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"], "decoder": ["<pad>", "<eos>", "<bos>", "<unk>"]}
"""Special tokens in the order of their ids. The padding tokens of the two sides differ."""
AROUND = {"encoder": "[CLS] $A [SEP]", "decoder": "<bos> $A"}
"""What each tokenizer puts around a text."""
SOURCES = {"modernbert": "encoder", "gemma2": "decoder", "gemma3": "decoder"}
"""Pretrained models, and whose tokenizer they use."""
MASKED = {"name": "masked", "window": 160, "rate": 0.3, "mask": "[MASK]"}
PAIRS: dict[str, dict[str, Any]] = {
    "gemma2-gemma2": {"encoder": "gemma2", "decoder": "gemma2"},
    "modernbert-gemma3": {"encoder": "modernbert", "decoder": "gemma3", "cross_attention": "zero_output"},
}
STEPS, PRETRAINING, FEW = 1920, 600, 80
"""Steps of adaptation and of pretraining, and the files of a quick run."""
READ, WRITTEN, ROWS, TEXTS = 256, 192, 25, 200
"""To measure the use of the source: characters of a source and of the text that follows it, rows of a batch, texts."""


def main() -> None:
    from_command_line(
        __doc__, compare, lambda results, out: (out / "results.md").write_text("\n".join(table(results)) + "\n", "utf-8")
    )


def compare(out: Path, jobs: int, quick: bool) -> Results:
    """The results of both pairs."""
    write_texts(out, FEW if quick else None)
    for side, special in SPECIAL.items():
        if not (out / side / "tokenizer.json").is_file():
            (out / side).mkdir(exist_ok=True)
            tokenizer(out, special, AROUND[side]).save(str(out / side / "tokenizer.json"))
        (out / f"{side}.corpus.json").write_text(json.dumps(CORPUS | {"tokenizer": side}), "utf-8")
        pairform_command(out, "data", "prepare", f"{side}.corpus.json", "--out", f"shards-{side}")
    with ThreadPoolExecutor(jobs) as pool:
        wait([pool.submit(pretrain, out, name, side, quick) for name, side in SOURCES.items()])
        wait([pool.submit(train, out, name, adaptation(pair), quick) for name, pair in PAIRS.items()])
    return [
        {"pair": name, "losses": losses(out / RUNS / name)["own"], "use of the source": use_of_the_source(out, name, quick)}
        for name in PAIRS
    ]


def tokenizer(out: Path, special: Sequence[str], around: str) -> Tokenizer:
    """A byte-level BPE trained on a part of the corpus."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts(out / "library.jsonl"), trainer)
    named = [(name, made.token_to_id(name)) for name in around.split() if name != "$A"]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=named)
    return made


def texts(file: Path) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def pretrain(out: Path, name: str, side: str, quick: bool) -> None:
    """Train a source and write it in the transformers format, from which it is converted."""
    recipe = json.loads((HERE / "pretrain.json").read_text("utf-8")) | {"model": str(HERE / f"{name}.json")}
    recipe |= {"steps": PRETRAINING}
    recipe["data"]["shards"] = f"shards-{side}"
    if side == "encoder":
        recipe["data"]["objective"] = MASKED
    train(out, name, recipe, quick)
    if not (out / "hf" / name).is_dir():
        pairform_command(out, "export", f"{MODELS}/{name}", "--out", f"hf/{name}", "--format", "transformers")


def adaptation(pair: Mapping[str, Any]) -> dict[str, Any]:
    """`adapt.json` for a pair."""
    recipe: dict[str, Any] = json.loads((HERE / "adapt.json").read_text("utf-8"))
    folders = {side: f"hf/{pair[side]}" for side in ("encoder", "decoder")}
    recipe |= {"model": {"convert": {**pair, **folders}}, "steps": STEPS}
    recipe["data"]["shards"] = "shards-decoder"
    recipe["evaluation"] |= {"every": STEPS // 8, "rows": 128}
    return recipe


@torch.no_grad()
def use_of_the_source(out: Path, name: str, quick: bool) -> float:
    """How much lower the loss of a token is with its own source than with that of another text, in files kept apart."""
    model = pairform.load(out / MODELS / name)
    sides = {side: Tokenizer.from_file(str(file)) for side, file in tokenizer_files(out / MODELS / name).items()}
    length = READ + WRITTEN
    pieces = [text[begin : begin + length] for text in texts(out / "apart.jsonl") for begin in range(0, len(text), length)]
    whole = [piece for piece in pieces if len(piece) == length]
    count = ROWS if quick else TEXTS
    chosen = [whole[index * len(whole) // count] for index in range(count)]
    differences = []
    for first in range(0, count, ROWS):
        rows = chosen[first : first + ROWS]
        sources = [sides["encoder"].encode(text[:READ]).ids for text in rows]
        targets = [sides["decoder"].encode(text[READ:], add_special_tokens=False).ids for text in rows]
        labels = padded(targets, -100)
        own, other = (
            model(input_ids=padded(given, 0), attention_mask=padded([[1] * len(row) for row in given], 0), labels=labels).loss
            for given in (sources, [sources[-1], *sources[:-1]])
        )
        differences.append(float(other - own))
    return sum(differences) / len(differences)


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """The tokenizer that each side of a pair reads."""
    decoder, own = folder / "tokenizer.json", folder / "encoder_tokenizer" / "tokenizer.json"
    return {"encoder": own if own.is_file() else decoder, "decoder": decoder}


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def table(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    places = [tokens for tokens, _ in results[0]["losses"]]
    yield f"| pair | {' | '.join(f'{tokens:,} tokens' for tokens in places)} | use of the source |"
    yield "|---" * (len(places) + 2) + "|"
    for result in results:
        values = [f"{loss:.3f}" for _, loss in result["losses"]]
        yield f"| {result['pair']} | {' | '.join(values)} | {result['use of the source']:.3f} |"


if __name__ == "__main__":
    main()
