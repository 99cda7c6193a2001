"""Files that belong to a model beside its weights: tokenizer, chat template, generation settings."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from pairform.assemblies.families.generation import GENERATION

COMPANIONS = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION,
)
"""Files that come along from a source."""
ENCODER_TOKENIZER = "encoder_tokenizer"
"""Where the encoder's tokenizer goes if it is not the decoder's."""


def copy_companions(folder: Path, sources: Mapping[str, Path]) -> None:
    """The companions of the last stack's source into `folder`; the encoder's tokenizer beside them if it is another."""
    main = sources["decoder" if "decoder" in sources else "encoder"]
    for name in COMPANIONS:
        if (main / name).is_file():
            shutil.copyfile(main / name, folder / name)
    encoder = sources.get("encoder", main)
    own = encoder / "tokenizer.json"
    if own.is_file() and (main / own.name).is_file() and digest(own) != digest(main / own.name):
        (folder / ENCODER_TOKENIZER).mkdir()
        for name in COMPANIONS:
            if name != GENERATION and (encoder / name).is_file():
                shutil.copyfile(encoder / name, folder / ENCODER_TOKENIZER / name)


def copy_all_companions(folder: Path, source: Path) -> None:
    """Every companion of one model, the encoder's own tokenizer included."""
    copy_companions(folder, {"decoder": source})
    if (source / ENCODER_TOKENIZER).is_dir():
        shutil.copytree(source / ENCODER_TOKENIZER, folder / ENCODER_TOKENIZER)


def digest(file: Path) -> str:
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()
