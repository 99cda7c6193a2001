"""Image files as pixel values for a model with vision, and the tokens that stand for them in a text."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pairform.assemblies.checkpoints.reading.load_spec import load_spec
from pairform.assemblies.modeling.model import Model
from pairform.assemblies.specs.model import ModelSpec, VisionSpec
from pairform.blocks.spec_fields import PictureEmbeddingSpec
from pairform.registry import InputError, Problem, open_regular, shorten

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | os.PathLike[str] | Image"
Pictures: TypeAlias = "Picture | Sequence[Picture]"
Declared: TypeAlias = "Model | ModelSpec | str | Path | Mapping[str, Any]"
"""A model, or what `load_spec` takes."""
LARGEST = 1 << 13
"""The most pixels of a side: such a picture takes 800 MB."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The formats that are read. Pillow reads others too: EPS through Ghostscript, which runs code in the file."""


def read_pictures(pictures: Pictures, size: "int | Declared") -> Float[Tensor, "pictures 3 size size"]:
    """Read images as `pixel_values`, preprocessed as for Gemma 3 in transformers.

    Each image is converted to RGB, resized to a square (bilinear, antialiased; the aspect ratio is not kept), and normalised as
    `(value / 255 - 0.5) / 0.5`. A file is rotated by its EXIF orientation and its transparency is dropped; an image that the
    caller opened is not rotated, and its transparency becomes white. Of several frames the first is read.

    Args:
        pictures: one or several paths or Pillow images.
        size: the side in pixels, or the model or spec whose tower will read them.

    Returns:
        `[pictures, 3, size, size]`, float32 between -1 and 1, on the CPU.

    Raises:
        InputError: no readable image, an invalid size, or a model without vision.
    """
    side = size if isinstance(size, int) else image_size(size)
    if isinstance(size, bool) or not 1 <= side <= LARGEST:
        raise InputError(Problem("size", shorten(size), f"1 to {LARGEST:,} pixels"))
    given = [pictures] if isinstance(pictures, str) or not isinstance(pictures, Sequence) else pictures
    pixels = torch.empty(len(given), 3, side, side)
    for index, picture in enumerate(given):
        pixels[index] = square(as_rgb(picture, f"pictures[{index}]"), side)
    return pixels


def picture_tokens(model: Declared) -> list[int]:
    """The token ids that stand for one picture in a text.

    Args:
        model: a model with vision, or its spec.

    Returns:
        The begin token, one image token for each embedding of a picture, the end token; begin and end if the spec has them.

    Raises:
        InputError: the model has no vision.
    """
    vision = vision_of(model)
    ids = [vision.begin_token, *[vision.image_token] * vision.tokens, vision.end_token]
    return [token for token in ids if token is not None]


def place_pictures(ids: Sequence[int], count: int, model: Declared) -> list[int]:
    """A text's token ids with the tokens of `count` pictures.

    A text marks the place of a picture with the spec's begin token, or its image token if there is no begin token. Without
    such places, the pictures come first, after the begin-of-sequence token. Ids that hold the tokens of all pictures stay.

    Raises:
        InputError: another number of places than of pictures, or a model without vision.
    """
    vision = vision_of(model)
    spec = model.spec if isinstance(model, Model) else load_spec(model)
    images = sum(token == vision.image_token for token in ids)
    if images == count * vision.tokens and (images > count or vision.tokens == 1):
        return list(ids)
    mark = vision.image_token if vision.begin_token is None else vision.begin_token
    places = [place for place, token in enumerate(ids) if token == mark]
    picture = picture_tokens(model)
    if not places and not images:
        first = 1 if ids and ids[0] == spec.tokens_of(next(iter(spec.stacks))).bos else 0
        return [*ids[:first], *picture * count, *ids[first:]]
    if len(places) != count or (mark != vision.image_token and images):
        found = f"{len(places)} places of pictures (token {mark}) and {images} image tokens (token {vision.image_token})"
        raise InputError(Problem("input_ids", found, f"{count} places, one for each picture, or none"))
    return [token for each in ids for token in (picture if each == mark else (each,))]


def vision_of(model: Declared) -> VisionSpec:
    """The vision of the first stack, which reads the pictures."""
    spec = model.spec if isinstance(model, Model) else load_spec(model)
    part, stack = next(iter(spec.stacks.items()))
    if stack.vision is None:
        raise InputError(Problem(f"{part}.vision", "nothing", "vision: without it a model reads no pictures"))
    return stack.vision


def image_size(model: Declared) -> int:
    """The side of the pictures that the tower reads, in pixels."""
    patches = PictureEmbeddingSpec.of(vision_of(model).tower.embedding)
    if patches.image_size is None:
        found = f"an embedding {patches.name!r} without image_size"
        raise InputError(Problem("vision.tower", found, "one that says its image_size", "Give the size in pixels."))
    if patches.channels != 3:
        raise InputError(Problem("vision.tower.embedding.channels", str(patches.channels), "3: image files are read as RGB"))
    return patches.image_size


def as_rgb(picture: Picture, where: str) -> "Image":
    """One picture, decoded, in RGB."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        remedy = "Run: pip install pairform[pictures]"
        raise InputError(Problem("read_pictures", "no Pillow", "Pillow, which decodes images", remedy)) from None
    if not isinstance(picture, str | os.PathLike | Image.Image):
        raise InputError(Problem(where, shorten(picture), "a path, or an image opened with Pillow"))
    if isinstance(picture, Image.Image) and picture.format == "EPS":
        remedy = "Render it as PNG; Pillow would run Ghostscript on it."
        raise InputError(Problem(where, "an EPS image", f"one of {', '.join(FORMATS)}", remedy))
    try:
        if isinstance(picture, Image.Image):
            rgb = on_white(picture)
        else:
            where = str(picture)
            with open_regular(Path(picture)) as raw, Image.open(raw, formats=FORMATS) as file:
                rgb = ImageOps.exif_transpose(file).convert("RGB")
    except UnidentifiedImageError:
        raise InputError(Problem(where, "no image", f"PNG or JPEG, or one of {', '.join(FORMATS)}")) from None
    except Image.DecompressionBombError as error:
        remedy = "If you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS."
        raise InputError(Problem(where, f"a huge image ({error})", "fewer pixels", remedy)) from None
    except OSError as error:
        raise InputError(Problem(where, error.strerror or str(error), "a readable, whole image")) from None
    except Exception as error:  # Pillow's decoders raise many kinds on damaged files: RuntimeError, SyntaxError, ...
        raise InputError(Problem(where, f"{type(error).__name__}: {error}", "a readable, whole image")) from None
    if 0 in rgb.size:
        raise InputError(Problem(where, f"{rgb.width} x {rgb.height} pixels", "at least one"))
    return rgb


def on_white(picture: "Image") -> "Image":
    """RGB, with white behind transparent pixels."""
    from PIL import Image

    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    coloured = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")


def square(picture: "Image", side: int) -> Float[Tensor, "3 side side"]:
    """Resized and between -1 and 1; divided in float64 and rounded once, as transformers does."""
    from PIL import Image

    resized = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized * (1 / 255)).permute(2, 0, 1).float().sub(0.5).div(0.5)
