"""Which files of a folder belong to a model, and which are someone's own."""

import re
from pathlib import Path

from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, SPEC
from pairform.assemblies.checkpoints.reading.weights import INDEX
from pairform.assemblies.checkpoints.writing.companions import COMPANIONS, ENCODER_TOKENIZER
from pairform.assemblies.families.tokens import GENERATION

PROVENANCE = "provenance.json"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
OTHERS = (
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "spiece.model",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Files of tokenizers and processors that transformers writes and pairform does not."""


def model_files(folder: Path) -> list[str]:
    """The files in a folder that a model written by pairform can consist of, as relative paths in order."""
    beside = (SPEC, CONFIG, PROVENANCE, INDEX, GENERATION, *COMPANIONS)
    names = [path.name for path in folder.iterdir() if path.name in beside or WEIGHTS.fullmatch(path.name)]
    own = folder / ENCODER_TOKENIZER
    if own.is_dir():
        names += [f"{own.name}/{path.name}" for path in own.iterdir() if path.name in COMPANIONS]
    return sorted(names)


def holds_model(folder: Path) -> bool:
    """Whether a folder is a model's. Many other programs have a config.json too, but no weights beside it."""
    files = [path.name for path in folder.iterdir() if path.is_file()]
    return SPEC in files or (CONFIG in files and any(WEIGHTS.fullmatch(name) for name in files))


def foreign_files(folder: Path) -> list[str]:
    """The names in a folder that are not of a model's files: everything but regular files and links of known names."""
    known = {*model_files(folder), *OTHERS}
    found = []
    for path in folder.iterdir():
        if path.name == ENCODER_TOKENIZER and is_folder(path):
            inner = [f"{path.name}/{each.name}" for each in path.iterdir() if is_folder(each) or each.name not in OTHERS]
            found += [name for name in inner if name not in known or is_folder(folder / name)]
        elif path.name not in known or is_folder(path):
            found.append(path.name)
    return sorted(found)


def is_folder(path: Path) -> bool:
    """Whether this is a folder itself, not a link to one: removing a link removes nothing else."""
    return path.is_dir() and not path.is_symlink()
