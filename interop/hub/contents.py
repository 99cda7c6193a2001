"""What of a folder is published: a model's files, by name, checked before anything is sent."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.checkpoint import checkpoint_in
from pairform.assemblies.checkpoints.reading.file_names import (
    CARD,
    COMPANIONS,
    ENCODER_COMPANIONS,
    ENCODER_TOKENIZER,
    NOTICES,
    OTHERS,
    PROVENANCE,
    SENTENCE_SETTINGS,
)
from pairform.assemblies.checkpoints.reading.hub import module_files
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, SPEC, ModelFolder
from pairform.assemblies.checkpoints.reading.sentence_modules import MODULES
from pairform.assemblies.checkpoints.reading.weights import INDEX, SINGLE
from pairform.assemblies.checkpoints.verify import differences, missing
from pairform.assemblies.checkpoints.writing.companions import resolved, unreadable
from pairform.assemblies.checkpoints.writing.contents import WEIGHTS, files_beside, foreign_files, model_files, read_record
from pairform.assemblies.checkpoints.writing.folder import NAMED
from pairform.assemblies.families.tokens import GENERATION
from pairform.interop.hub import licences
from pairform.interop.hub.card import card_of, published_bases, published_provenance
from pairform.interop.hub.paths import without_path_fields
from pairform.registry import InputError, OutputError, Problem, open_regular, read_bytes, read_json

CONFIGURATIONS = frozenset(
    {CONFIG, GENERATION, *(name for name in (*COMPANIONS, *ENCODER_COMPANIONS) if name.endswith("tokenizer_config.json"))}
)
"""JSON files in which transformers may have recorded where files were."""


@dataclass(frozen=True)
class Upload:
    """A file to send. content: a file on disk, or bytes that are made for the hub."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


def uploads(folder: Path, repository: str, license: str | None, replace_card: bool) -> list[Upload]:
    """The files of a folder as they are published, in order of their names.

    The card is written unless there is one or `replace_card` is set. Local paths are left out of JSON files. A NOTICE is added
    where Gemma's terms ask for it.

    Raises:
        CheckpointError, SpecError: the folder holds no model, or not as it was written.
        OutputError: files in it are not a model's, or are links out of it.
        InputError: a licence for a card that is kept.
    """
    model = ModelFolder(folder)
    names = published_names(folder)
    check_model(model)
    found: dict[str, Path | bytes] = {}
    for name in names:
        real = resolved(folder, name)
        if real is not None:
            try:
                open_regular(real).close()
            except OSError as error:
                raise unreadable(folder / name, error) from None
            found[name] = real
    for name in CONFIGURATIONS & found.keys():
        document = read_json(folder / name)
        if (published := without_path_fields(document)) != document:
            found[name] = json_bytes(published)
    if PROVENANCE in found:
        found[PROVENANCE] = provenance_bytes(model, found)
    if CARD in found and not replace_card and license is not None:
        raise kept_card(str(folder / CARD))
    if replace_card or CARD not in found:
        found[CARD] = card_of(model, repository, license).encode()
    if licences.under_gemma(published_bases(model)):
        check_notice(found, folder)
    return [Upload(name, content) for name, content in sorted(found.items())]


def kept_card(card: str) -> InputError:
    found = f"a licence, and a model card that is kept, {card}"
    return InputError(Problem("license", found, "one of them", "Write the licence into the card, or replace the card."))


def published_names(folder: Path) -> list[str]:
    """The names of a model's files, of its card and of its licences. Any other file is an error: it may be private."""
    allowed = {CARD, *NOTICES, MODULES, *SENTENCE_SETTINGS}
    modules = [each for each in map(Path, module_files(folder)) if (folder / each).exists()]
    whole = {each.parts[0] for each in modules if only_holds(folder / each.parts[0], {CONFIG, SINGLE})}
    if foreign := [
        name for name in foreign_files(folder) if name not in whole and (name not in allowed or (folder / name).is_dir())
    ]:
        more = f" and {len(foreign) - NAMED} more" if len(foreign) > NAMED else ""
        found = f"{', '.join(foreign[:NAMED])}{more} beside the model"
        expected = "a folder that holds a model, its card and its licence"
        raise OutputError(Problem(str(folder), found, expected, "Nothing was sent. Move them elsewhere."))
    own = folder / ENCODER_TOKENIZER
    inner = [f"{own.name}/{path.name}" for path in own.iterdir() if path.name in OTHERS] if own.is_dir() else []
    inner += map(str, modules)
    return [*model_files(folder), *inner, *(path.name for path in folder.iterdir() if path.name in {*OTHERS, *allowed})]


def only_holds(folder: Path, names: set[str]) -> bool:
    return folder.is_dir() and not folder.is_symlink() and {path.name for path in folder.iterdir()} <= names


def check_model(model: ModelFolder) -> None:
    """Check that the model can be loaded, and that its files are those that were recorded. Weights are not read."""
    checkpoint_in(model)
    if problems := [*recorded_problems(model)]:
        again = "To publish it as it is, write it again: `pairform export DIR --format pairform --out NEW`."
        first = Problem(problems[0].where, problems[0].found, problems[0].expected, again)
        raise OutputError([first, *problems[1:]])


def recorded_problems(model: ModelFolder) -> Iterator[Problem]:
    problems: list[Problem] = []
    record = read_record(model.path, problems)
    yield from problems
    if record is None:
        return
    yield from missing(record["tensors"], model.tensors, model.path)
    if "files" in record:
        present = {name: digest for name, digest in files_beside(model.path).items() if name in record["files"]}
        yield from differences(record["files"], present, model.path)


def provenance_bytes(model: ModelFolder, found: Mapping[str, Path | bytes]) -> bytes:
    """provenance.json without local paths. It records the files as they are published, with those that were added."""
    document: dict[str, Any] = published_provenance(model)
    if "files" in document:
        changed = {name: sha256(content).hexdigest() for name, content in found.items() if isinstance(content, bytes)}
        document["files"] = {name: changed.get(name, digest) for name, digest in files_beside(model.path).items()}
    return json_bytes(document)


def json_bytes(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def check_notice(found: dict[str, Path | bytes], folder: Path) -> None:
    """Add the notice that Gemma's terms ask for. One that is there must hold it."""
    own = [name for name in NOTICES if name.startswith(licences.NOTICE) and name in found]
    if not own:
        found[licences.NOTICE] = licences.notice()
        return
    if not any(licences.TERMS in read_bytes(folder / name).decode("utf-8", "replace") for name in own):
        expected = f'the sentence "{licences.GEMMA_NOTICE}"'
        raise OutputError(
            Problem(str(folder / own[0]), "no notice of Gemma's terms", expected, "The terms ask for it: add it.")
        )


def obsolete(names: list[str], wanted: Mapping[str, Upload]) -> list[str]:
    """Of the names in a repository, the files of the model that is replaced which the new one has not."""
    known = {
        SPEC,
        CONFIG,
        GENERATION,
        INDEX,
        MODULES,
        *SENTENCE_SETTINGS,
        PROVENANCE,
        *COMPANIONS,
        *ENCODER_COMPANIONS,
        *OTHERS,
    }
    return [name for name in names if name not in wanted and (name in known or WEIGHTS.fullmatch(name))]
