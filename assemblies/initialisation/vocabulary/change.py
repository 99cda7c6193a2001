"""The change of a source's vocabulary: which old rows make each new one, and the new spec and tokenizer."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.checkpoints.reading.load_spec import patch_spec
from pairform.assemblies.checkpoints.writing.companions import (
    COMPANION_BYTES,
    COMPANIONS,
    ENCODER_TOKENIZER,
    TOKENIZER,
    resolved,
)
from pairform.assemblies.initialisation.options import Vocabulary
from pairform.assemblies.initialisation.plan import NewVocabulary
from pairform.assemblies.initialisation.vocabulary.chosen import chosen_tokens
from pairform.assemblies.initialisation.vocabulary.tokenizer_file import TokenizerFile
from pairform.assemblies.initialisation.vocabulary.transplant import ROLES, Spelling, token_name, transplanted
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.tokens import TokenSpec
from pairform.registry import CheckpointError, Problem, SpecError, read_bytes, read_json

CONFIG = "tokenizer_config.json"
ADDED = "added_tokens.json"
IDS = ("pad", "bos", "start")
PICTURE_IDS = ("image_token", "begin_token", "end_token")
Renumber = Callable[[int], int | None]


@dataclass(frozen=True)
class TokenizerFolder:
    """The files of a tokenizer in a folder, each read once. limit: size of the vocabulary of the model with this tokenizer."""

    path: Path
    limit: int | None = None

    @cached_property
    def file(self) -> TokenizerFile:
        place = self.path / TOKENIZER
        content = self.read(TOKENIZER)
        if content is None:
            raise CheckpointError(Problem(str(place), "no such file", "a tokenizer.json, to change the vocabulary"))
        return TokenizerFile(content, str(place), self.limit)

    @cached_property
    def config(self) -> dict[str, Any]:
        """tokenizer_config.json, with the special tokens of special_tokens_map.json; empty without both."""
        found: dict[str, Any] = {}
        for name in ("special_tokens_map.json", CONFIG):
            content = self.read(name)
            if content is not None:
                found |= read_json(self.path / name, content=content)
        return found

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none. Links out of the folder are not followed."""
        real = resolved(self.path, name)
        try:
            return None if real is None else read_bytes(real, COMPANION_BYTES)
        except OSError as error:
            raise CheckpointError(Problem(str(self.path / name), error.strerror or str(error), "a regular file")) from None


def new_vocabulary(source: Checkpoint, options: Vocabulary) -> NewVocabulary:
    """The change that `options` ask for.

    Raises:
        SpecError: the source has two tokenizers, or the options do not fit it.
        CheckpointError: a tokenizer cannot be read.
    """
    if (source.folder / ENCODER_TOKENIZER).exists():
        remedy = "Extract the stack first, and change the vocabulary of what you extracted."
        raise SpecError(Problem("vocabulary", f"two tokenizers in {source.folder}", "a source with one", remedy))
    folder = TokenizerFolder(source.folder, source.spec.vocabulary)
    digest = sha256(folder.file.content)
    if options.tokenizer is None:
        kept = chosen_tokens(options, folder.file, named_ids(source.spec))
        return NewVocabulary(rows=tuple((old,) for old in kept), old=digest)
    other = TokenizerFolder(Path(options.tokenizer))
    rows = tuple(transplanted(Spelling(other.file, other.config), Spelling(folder.file, folder.config)))
    return NewVocabulary(rows=rows, old=digest, tokenizer=options.tokenizer, new=sha256(other.file.content))


def named_ids(spec: ModelSpec) -> set[int]:
    """The ids that a model refers to."""
    found: set[int] = set()
    for part, stack in spec.stacks.items():
        found |= {token for _, token in spec.tokens_of(part).named()}
        if stack.vision is not None:
            found |= {token for name in PICTURE_IDS if (token := getattr(stack.vision, name)) is not None}
        end = stack.embedding.document().get("end_of_image")
        found |= set() if end is None else {end}
        if any(token >= spec.vocabulary_of(part) for token in found):
            expected = "ids below the vocabulary's size"
            raise SpecError(Problem("vocabulary", f"a token outside the vocabulary: {max(found)}", expected))
    return found


def with_vocabulary(source: Checkpoint, change: NewVocabulary) -> ModelSpec:
    """The source's spec with the new vocabulary, and with the new ids of its tokens."""
    folder = TokenizerFolder(source.folder, source.spec.vocabulary)
    if change.tokenizer is None:
        new = {row[0]: index for index, row in enumerate(change.rows)}
        renumber: Renumber = new.get
    else:
        renumber = same_tokens(TokenizerFolder(Path(change.tokenizer)), folder)
    spec = source.spec
    patch: dict[str, Any] = {"vocabulary": len(change.rows), "tokens": new_tokens(spec.tokens, renumber, "tokens")}
    for part, stack in spec.stacks.items():
        own: dict[str, Any] = {"vocabulary": None}
        if stack.layer_input is not None:
            own["layer_input"] = {"vocabulary": None}
        if stack.tokens is not None:
            own["tokens"] = new_tokens(stack.tokens, renumber, f"{part}.tokens")
        if stack.vision is not None:
            ids = {name: token for name in PICTURE_IDS if (token := getattr(stack.vision, name)) is not None}
            own["vision"] = {name: required(renumber, token, f"{part}.vision.{name}") for name, token in ids.items()}
        if (end := stack.embedding.document().get("end_of_image")) is not None:
            own["embedding"] = {"end_of_image": required(renumber, end, f"{part}.embedding.end_of_image")}
        patch[part] = own
    return patch_spec(spec, patch)


def new_tokens(tokens: TokenSpec, renumber: Renumber, where: str) -> dict[str, Any]:
    """The patch that gives special tokens their new ids."""
    found: dict[str, Any] = {}
    for name in IDS:
        if (token := getattr(tokens, name)) is not None:
            found[name] = required(renumber, token, f"{where}.{name}")
    ends = [new for token in tokens.ends if (new := renumber(token)) is not None]
    if tokens.ends and not ends:
        required(renumber, tokens.ends[0], f"{where}.eos")
    return found | ({"eos": ends[0] if len(ends) == 1 else ends} if ends else {})


def required(renumber: Renumber, token: int, where: str) -> int:
    new = renumber(token)
    if new is None:
        expected = "a token that the new tokenizer has too, or one of the same role in its tokenizer_config.json"
        raise SpecError(Problem(f"vocabulary: {where}", f"token {token}", expected))
    return new


def same_tokens(new: TokenizerFolder, old: TokenizerFolder) -> Renumber:
    """The new id of an old token: that of the same spelling, or of the same role."""
    roles = {token_name(old.config.get(role)): token_name(new.config.get(role)) for role in reversed(ROLES)}

    def renumber(token: int) -> int | None:
        name = old.file.tokens.get(token)
        if name is None:
            return None
        other = roles.get(name)
        return new.file.ids.get(name if other is None else other)

    return renumber


def tokenizer_files(source: Checkpoint, change: NewVocabulary) -> dict[str, bytes]:
    """The files of the new tokenizer by name.

    Raises:
        CheckpointError: a tokenizer is not the one that the plan was made for.
    """
    folder = TokenizerFolder(source.folder, source.spec.vocabulary)
    check_digest(folder, change.old)
    if change.tokenizer is not None:
        other = TokenizerFolder(Path(change.tokenizer))
        check_digest(other, change.new)
        return {name: content for name in COMPANIONS if (content := other.read(name)) is not None}
    kept = [row[0] for row in change.rows]
    new = {old: index for index, old in enumerate(kept)}
    # tokenizer.model, in which SentencePiece keeps all tokens, is left out
    found = {name: folder.read(name) for name in COMPANIONS if name not in ("tokenizer.model", TOKENIZER, CONFIG, ADDED)}
    made = {name: content for name, content in found.items() if content is not None}
    made[TOKENIZER] = folder.file.keeping(kept)
    for name, change_ids in ((CONFIG, with_new_ids), (ADDED, with_new_values)):
        if (content := folder.read(name)) is not None:
            document = change_ids(read_json(source.folder / name, content=content), new)
            made[name] = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    return made


def with_new_ids(config: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer_config.json whose `added_tokens_decoder` has the new ids as its keys."""
    entries = config.get("added_tokens_decoder")
    if not isinstance(entries, Mapping):
        return dict(config)
    kept = {str(new[int(old)]): entry for old, entry in entries.items() if old.isdigit() and int(old) in new}
    return {**config, "added_tokens_decoder": kept}


def with_new_values(tokens: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """An added_tokens.json with the new ids."""
    return {name: new[old] for name, old in tokens.items() if old in new}


def check_digest(folder: TokenizerFolder, digest: str | None) -> None:
    if digest is not None and sha256(folder.file.content) != digest:
        expected = "the file that the plan was made for"
        raise CheckpointError(Problem(folder.file.place, "a file that has changed since", expected, "Plan again."))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
