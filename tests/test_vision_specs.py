"""Vision that cannot be is refused when its spec is read."""

from typing import Any

import pytest

import pairform
from tests.small_vision import IMAGE, document


def nested(read: dict[str, Any]) -> None:
    read["vision"]["tower"]["vision"] = document()["encoder"]["vision"]


def beside_an_encoder(read: dict[str, Any]) -> None:
    read["vision"] = document()["encoder"]["vision"]


def rows_of_tokens(read: dict[str, Any]) -> None:
    read["vision"]["tower"]["layer_input"] = {"channels": 2, "vocabulary": 9, "norm": {"name": "rmsnorm"}}


@pytest.mark.parametrize(
    ("part", "edit", "words"),
    [
        ("encoder", rows_of_tokens, ["encoder.vision.tower.layer_input.table", "without token ids"]),
        ("decoder", beside_an_encoder, ["decoder.vision", "beside an encoder"]),
        ("encoder", nested, ["encoder.vision.tower.vision", "pictures inside pictures"]),
        ("encoder", lambda read: read["vision"].update(image_token=0), ["vision.image_token", "padding"]),
        ("encoder", lambda read: read["vision"].update(end_token=IMAGE), ["vision.image_token", "end_token"]),
        ("encoder", lambda read: read["vision"]["projector"].update(tokens=5), ["vision.projector.tokens", "5 tokens"]),
        ("encoder", lambda read: read.update(embedding={"name": "patches", "image_size": 16, "patch_size": 4}), ["patches"]),
    ],
)
def test_vision_that_cannot_be_is_refused_when_the_spec_is_read(part: str, edit: Any, words: list[str]) -> None:
    written = document()
    edit(written[part])
    with pytest.raises(pairform.PairformError) as caught:
        pairform.load_spec(written)
    assert all(word in str(caught.value) for word in words), str(caught.value)
