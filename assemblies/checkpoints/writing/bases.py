"""The models that weights come from, and their licences: recorded in provenance.json, and passed on when it is published."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from pairform.assemblies.checkpoints.reading.file_names import CARD, PROVENANCE
from pairform.assemblies.checkpoints.reading.hub import source_repository
from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, SPEC, ModelFolder
from pairform.registry import SpecError, open_regular, printable, read_json

GEMMA = "gemma"
"""The hub's name of the Gemma Terms of Use, which bind whoever passes on a model derived from Gemma."""
GEMMA_TYPES = ("gemma", "gemma2", "gemma3", "gemma3_text", "t5gemma", "t5gemma2")
"""Model types whose published weights are under these terms; Gemma 4 is under Apache 2.0."""
LICENSE = re.compile(r"""^license:[ \t]*["']?([a-z0-9][a-z0-9.+-]{0,39})["']?[ \t]*$""", re.MULTILINE | re.IGNORECASE)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
WORD = re.compile(r"[\w.+-]{1,100}", re.ASCII)
"""A commit, a model type or a licence."""
LONGEST = 200
"""Of a name, in characters."""
CARD_BYTES = 1 << 20
"""How much of a source's model card is read."""
MOST = 100
"""How many models a record may name."""


@dataclass(frozen=True)
class Base:
    """A model that weights come from.

    Attributes:
        name: its hub id if it has a revision, else its folder's name.
        revision: the commit on the hub; None for a folder.
        model_type: as in its config.json.
        license: the hub's name of its licence; None if it is unknown.
    """

    name: str
    revision: str | None = None
    model_type: str | None = None
    license: str | None = None

    def document(self) -> dict[str, str]:
        return {field: value for field, value in asdict(self).items() if value is not None}


def bases_of(sources: Iterable[ModelFolder]) -> tuple[Base, ...]:
    """The models that the weights of these folders come from."""
    return tuple(dict.fromkeys(base for source in sources for base in bases_in(source)))


def bases_in(source: ModelFolder) -> tuple[Base, ...]:
    """A snapshot of the hub is a base itself. Another folder has those that its provenance names; without any, it is one."""
    recorded = recorded_bases(source)
    found = source_repository(source.path)
    if found is None and recorded:
        return recorded
    if found is None and not any((source.path / name).exists() for name in (SPEC, CONFIG)):
        return ()  # a tokenizer's folder
    kind = None if (source.path / SPEC).exists() else source.config.get("model_type")
    kind = kind if isinstance(kind, str) and WORD.fullmatch(kind) else None
    terms = joint_license(recorded)
    if terms != GEMMA:
        terms = GEMMA if kind in GEMMA_TYPES else card_license(source) or terms
    if found is not None:
        return (Base(found.name, found.revision, kind, terms),)
    return (Base(printable(source.path.resolve().name)[:LONGEST], None, kind, terms),)


def recorded_bases(source: ModelFolder) -> tuple[Base, ...]:
    """The bases in a folder's provenance. What has not the form of a name, as a stranger's file may hold, is left out."""
    entries: Any = None
    with suppress(SpecError):
        entries = read_json(source.path / PROVENANCE).get("bases")
    return read_bases(entries)


def read_bases(entries: object) -> tuple[Base, ...]:
    found = []
    for entry in entries[:MOST] if isinstance(entries, list) else ():
        given: Mapping[str, object] = entry if isinstance(entry, dict) else {}
        fields = {name: value for name in Base.__annotations__ if isinstance(value := given.get(name), str)}
        words = all(WORD.fullmatch(value) for field, value in fields.items() if field != "name")
        if words and "name" in fields and fields["name"].isprintable() and len(fields["name"]) <= LONGEST:
            if not HUB_ID.fullmatch(fields["name"]):
                fields.pop("revision", None)
            found.append(Base(**fields))
    return tuple(found)


def card_license(source: ModelFolder) -> str | None:
    """The licence that a folder's model card names in its metadata."""
    try:
        with open_regular(source.path / CARD) as raw:
            text = raw.read(CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    parts = re.split(r"^---[ \t]*$", text.replace("\r\n", "\n"), maxsplit=2, flags=re.MULTILINE)
    found = LICENSE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return None if found is None else found[1].lower()


def joint_license(bases: Iterable[Base]) -> str | None:
    """The licence of a model made of these: Gemma's terms if they bind one of them, else the one that all share."""
    licenses = {base.license for base in bases}
    if GEMMA in licenses:
        return GEMMA
    return licenses.pop() if len(licenses) == 1 else None
