"""Train a small, randomly initialised encoder-decoder to name drawn shapes, and test it on new pictures.

Takes about ten seconds on a CPU core.
"""

import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import pairform

WORDS = ["<pad>", "<eos>", "<bos>", "<image>", "<begin>", "<end>", "what", "?"]
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 210, 40)}
SHAPES = ["circle", "square", "triangle"]
IDS = {word: index for index, word in enumerate([*WORDS, *COLOURS, *SHAPES])}
NAMES = list(IDS)
STEPS, BATCH = 400, 64

NORM = {"name": "rmsnorm"}
PATCHES = {"name": "patches", "image_size": 32, "patch_size": 8}


def layer(attention: dict[str, Any], norm: dict[str, Any] = NORM, **more: dict[str, Any]) -> dict[str, Any]:
    """A layer with two or three branches, of width 64."""
    heads = {"heads": 4, "bias": norm["name"] == "layernorm"}
    branches = {
        "self_attention": {"name": "self_attention", **heads, **attention},
        **{name: block | heads for name, block in more.items()},
        "feed_forward": {"name": "mlp", "hidden": 128, "bias": heads["bias"]},
    }
    return {"norm": norm, "placement": "pre", "order": list(branches), "branches": branches}


def stack(layer: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"width": 64, "depth": 1, "embedding": {"name": "token"}, "layer": layer, **more}


VISION = {
    "tower": stack(layer({}, {"name": "layernorm", "eps": 1e-6}), depth=2, embedding=PATCHES),
    "projector": {"name": "average_pool", "tokens": 4, "norm": NORM},
    "image_token": IDS["<image>"],
    "begin_token": IDS["<begin>"],
    "end_token": IDS["<end>"],
    "frozen": False,  # this tower is newly initialised; a pretrained tower can stay frozen
}
ROPE = {"position": {"name": "rope"}}
SPEC = {
    "assembly": "encoder_decoder",
    "vocabulary": len(IDS),
    "tokens": {"pad": 0, "eos": 1, "bos": 2},
    "encoder": stack(layer(ROPE), vision=VISION),
    "decoder": stack(layer(ROPE | {"mask": {"causal": True}}, cross_attention={"name": "cross_attention"})),
    "head": {"name": "lm"},
    "initializer_range": 0.15,
}


def draw(file: Path, colour: str, shape: str, chance: random.Random) -> Path:
    """Write an image file with one shape at a random place on a grey background."""
    image = Image.new("RGB", (96, 96), (chance.randrange(90, 170),) * 3)
    radius = chance.randrange(24, 36)
    x, y = (chance.randrange(radius, 96 - radius) for _ in "xy")
    if shape == "circle":
        ImageDraw.Draw(image).circle((x, y), radius, COLOURS[colour])
    else:
        ImageDraw.Draw(image).regular_polygon((x, y, radius), {"square": 4, "triangle": 3}[shape], fill=COLOURS[colour])
    image.save(file)
    return file


def examples(folder: Path, count: int, chance: random.Random) -> tuple[Tensor, Tensor]:
    """`pixel_values [count, 3, 32, 32]` and labels `[count, 3]`: a colour, a shape, the end token."""
    answers = [(chance.choice(list(COLOURS)), chance.choice(SHAPES)) for _ in range(count)]
    files = [draw(folder / f"{index}.png", *answer, chance) for index, answer in enumerate(answers)]
    labels = [[IDS[colour], IDS[shape], IDS["<eos>"]] for colour, shape in answers]
    return pairform.read_pictures(files, SPEC), torch.tensor(labels)


def questions(count: int) -> Tensor:
    """ "what <picture> ?", one row for each picture."""
    return torch.tensor([[IDS["what"], *pairform.picture_tokens(SPEC), IDS["?"]]]).expand(count, -1)


def accuracy(model: pairform.Model, pixels: Tensor, labels: Tensor) -> float:
    """The fraction of answers in which both words are correct."""
    written = model.generate(questions(len(pixels)), pixel_values=pixels, max_new_tokens=2, eos_token_id=[])
    return float((written[:, 1:] == labels[:, :2]).all(1).float().mean())


def main() -> None:
    chance = random.Random(0)
    torch.manual_seed(0)
    torch.set_num_threads(1)  # more threads do not help such a small model
    with tempfile.TemporaryDirectory() as folder:
        pixels, labels = examples(Path(folder), 3000, chance)
        unseen, expected = examples(Path(folder), 200, chance)
    model = pairform.build(SPEC, seed=0)
    print(f"before: {accuracy(model, unseen, expected):.0%} of unseen pictures named")
    optimizer = torch.optim.AdamW(model.train().parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(pixels), (BATCH,))
        optimizer.zero_grad()
        model(questions(BATCH), pixel_values=pixels[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
        schedule.step()
    print(f"after: {accuracy(model.eval(), unseen, expected):.0%}")
    written = model.generate(questions(3), pixel_values=unseen[:3], max_new_tokens=2)
    for row, truth in zip(written.tolist(), expected.tolist(), strict=False):
        print("what <picture> ?", *(NAMES[token] for token in row[1:]), "- it is a", *(NAMES[token] for token in truth[:2]))


if __name__ == "__main__":
    main()
