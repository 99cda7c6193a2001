"""Image files become the pixel values that transformers makes of them, and what is no image is refused."""

import builtins
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

import pairform
from tests.broken.damage import refused
from tests.small_vision import IMAGE, SIZE, TOKENS, document

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "I;16", "I", "F")
SHAPES = ((53, 37), (1, 1), (7, 90), (16, 16))
ORIENTATION = 0x0112


def draw(mode: str = "RGB", width: int = 53, height: int = 37, seed: int = 0) -> Image.Image:
    """Noise in one of Pillow's modes."""
    noise = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(noise.integers(0, 2**16, (height, width), dtype=np.uint16))
    image = Image.fromarray(noise.integers(0, 256, (height, width, 4), dtype=np.uint8), "RGBA")
    return image.convert(mode) if mode in ("RGBA", "LA") else image.convert("RGB").convert(mode)


def theirs(picture: Image.Image | Path, size: int) -> Tensor:
    """What transformers makes of a picture; a path is opened by its own loader, as its processors do."""
    processor = Gemma3ImageProcessorPil(
        size={"height": size, "width": size}, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    )
    image = processor.fetch_images(str(picture)) if isinstance(picture, Path) else picture
    return torch.from_numpy(np.stack(processor(image)["pixel_values"]))


@pytest.mark.parametrize("mode", MODES)
def test_images_are_what_transformers_makes_of_them(mode: str) -> None:
    for (width, height), size in itertools.product(SHAPES, (16, 56)):
        image = draw(mode, width, height)
        assert torch.equal(pairform.read_pictures(image, size), theirs(image, size))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("RGB", "jpg"), ("L", "jpg"), *itertools.product(["RGB", "RGBA", "L", "P"], ["png", "tiff", "webp", "bmp", "gif"])],
)
def test_files_are_what_transformers_makes_of_them(mode: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"picture.{kind}"
    draw(mode).save(file)
    assert torch.equal(pairform.read_pictures(file, 28), theirs(file, 28))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_turned_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    draw().save(tmp_path / "turned.png", exif=exif)
    draw().save(tmp_path / "plain.png")
    found = pairform.read_pictures(tmp_path / "turned.png", 28)
    assert torch.equal(found, theirs(tmp_path / "turned.png", 28))
    assert torch.equal(found, pairform.read_pictures(tmp_path / "plain.png", 28)) == (orientation == 1)


def test_an_opened_image_is_taken_as_it_lies_and_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert pairform.read_pictures(clear, 8).eq(1).all()
    clear.getexif()[ORIENTATION] = 6
    assert torch.equal(pairform.read_pictures(clear, 8), theirs(clear, 8))


def test_a_palette_with_a_transparent_colour_is_laid_on_white_too() -> None:
    image = draw("P")
    image.info["transparency"] = 3
    assert torch.equal(pairform.read_pictures(image, 16), theirs(image, 16))


def test_black_is_minus_one_and_white_is_one() -> None:
    pictures = [Image.new("RGB", (5, 9), colour) for colour in ("black", "white", "red")]
    black, white, red = pairform.read_pictures(pictures, 4)
    assert black.eq(-1).all()
    assert white.eq(1).all()
    assert red[0].eq(1).all()
    assert red[1:].eq(-1).all()


def test_several_pictures_keep_their_order_and_may_be_of_any_kind(tmp_path: Path) -> None:
    draw(seed=1).save(tmp_path / "one.png")
    given: list[Path | str | Image.Image] = [tmp_path / "one.png", str(tmp_path / "one.png"), draw(seed=2)]
    found = pairform.read_pictures(given, 12)
    assert found.shape == (3, 3, 12, 12)
    assert found.dtype == torch.float32
    for index, picture in enumerate(given):
        assert torch.equal(found[index : index + 1], pairform.read_pictures(picture, 12))
    assert pairform.read_pictures([], 12).shape == (0, 3, 12, 12)


def test_the_size_is_the_towers(tmp_path: Path) -> None:
    model = pairform.build(document(), seed=0)
    pairform.save(model, tmp_path / "model")
    for said in (model, model.spec, document(), tmp_path / "model", str(tmp_path / "model")):
        assert pairform.read_pictures(draw(), said).shape == (1, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({}, [IMAGE] * TOKENS),
        ({"begin_token": 4}, [4] + [IMAGE] * TOKENS),
        ({"begin_token": 4, "end_token": 5}, [4] + [IMAGE] * TOKENS + [5]),
    ],
)
def test_tokens_of_a_picture(ends: dict[str, Any], expected: list[int]) -> None:
    for assembly in ("encoder_decoder", "decoder_only"):
        assert pairform.picture_tokens(document(assembly, **ends)) == expected
    assert pairform.picture_tokens(pairform.build(document(**ends), device="meta")) == expected


def text_file(folder: Path) -> Path:
    file = folder / "notes.png"
    file.write_text("no image")
    return file


def truncated(folder: Path) -> Path:
    file = folder / "half.png"
    draw().save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def empty(folder: Path) -> Path:
    file = folder / "empty.jpg"
    file.touch()
    return file


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (text_file, ("notes.png", "no image", "PNG or JPEG")),
        (truncated, ("half.png", "whole image")),
        (empty, ("empty.jpg", "no image")),
        (lambda folder: folder / "absent.png", ("absent.png", "No such file")),
        (lambda folder: folder, ("a folder, not a file",)),
        (lambda folder: "bad\0name.png", ("whole image",)),
        (lambda folder: np.zeros((4, 4, 3), np.uint8), ("pictures[0]", "Pillow")),
        (lambda folder: torch.zeros(3, 4, 4), ("pictures[0]", "Pillow")),
        (lambda folder: [draw(), None], ("pictures[1]", "None")),
        (lambda folder: Image.new("RGB", (0, 5)), ("0 x 5 pixels",)),
    ],
)
def test_what_is_no_picture_is_refused(make: Callable[[Path], Any], words: tuple[str, ...], tmp_path: Path) -> None:
    refused(lambda: pairform.read_pictures(make(tmp_path), 8), *words)


@pytest.mark.parametrize("kind", ["png", "jpg", "tiff", "webp", "gif", "bmp"])
def test_any_damage_is_an_error_of_ours_or_a_picture(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"picture.{kind}"
    draw("RGB").save(file)
    whole = file.read_bytes()
    noise = np.random.default_rng(0)
    for turn in range(60):
        damaged = bytearray(whole[: noise.integers(len(whole))] if turn % 3 == 0 else whole)
        for place in noise.integers(0, max(1, min(len(damaged), 100)), 4):
            damaged[place : place + 1] = bytes([noise.integers(256)])
        file.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = pairform.read_pictures(file, 4)
            except pairform.PairformError as error:
                assert str(file) in str(error)
            else:
                assert found.abs().max() <= 1


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw().save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(lambda: pairform.read_pictures(tmp_path / "huge.png", 8), "huge.png", "huge image", "MAX_IMAGE_PIXELS")


@pytest.mark.parametrize("size", [0, -4])
def test_a_size_is_at_least_a_pixel(size: int) -> None:
    refused(lambda: pairform.read_pictures(draw(), size), "size", str(size))


def test_a_model_without_vision_has_no_size_and_no_tokens() -> None:
    refused(lambda: pairform.read_pictures(draw(), "gemma-2-2b"), "decoder.vision", "reads no pictures")
    refused(lambda: pairform.picture_tokens("t5gemma-s-s"), "encoder.vision", "reads no pictures")


def test_a_tower_of_other_channels_does_not_read_files() -> None:
    refused(lambda: pairform.read_pictures(draw(), document(channels=1)), "channels", "RGB")


def test_without_pillow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    refused(lambda: pairform.read_pictures(["picture.png"], 8), "pip install pairform[pictures]")
    assert pairform.picture_tokens(document()) == [IMAGE] * TOKENS


@pytest.mark.parametrize("opened", [False, True])
def test_eps_is_refused_before_ghostscript_would_run(opened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "picture.png"
    draw().save(file, "EPS")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    picture = Image.open(file) if opened else file
    refused(lambda: pairform.read_pictures(picture, 16), "PNG")
