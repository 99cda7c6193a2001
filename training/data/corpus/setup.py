"""What the documents of a corpus are encoded with: the tokenizer and the chat template."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.preprocessing.chat_template_files import (
    TEMPLATE,
    TOKENIZER_CONFIG,
    read_template,
    special_tokens,
    template_in,
)
from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer
from pairform.registry import Problem, SpecError, read_json
from pairform.training.data.corpus.manifest import BYTES, TOKENIZER, TokenizerRecord
from pairform.training.data.corpus.spec import CorpusSpec, SourceSpec
from pairform.training.data.tokenizer_files import read_tokenizer_file


@dataclass(frozen=True)
class Setup:
    """What an encoder is made of.

    tokenizer:  the content of its file; None for bytes.
    vocabulary: number of its ids.
    template:   text of the chat template, for conversations.
    special:    special tokens that the template may name, as `bos_token`.
    """

    sources: tuple[SourceSpec, ...]
    tokenizer: bytes | None
    vocabulary: int
    template: str | None = None
    special: tuple[tuple[str, str], ...] = ()

    @property
    def record(self) -> TokenizerRecord:
        digest = None if self.tokenizer is None else sha256(self.tokenizer)
        template = None if self.template is None else sha256(json.dumps([self.template, self.special]).encode())
        name = BYTES if self.tokenizer is None else TOKENIZER
        return TokenizerRecord.read({"name": name, "vocabulary": self.vocabulary, "sha256": digest, "chat_template": template})


def read_setup(corpus: CorpusSpec, folder: Path) -> Setup:
    """Read the tokenizer, and the chat template if there are conversations.

    folder: of the corpus file.

    Raises:
        SpecError: a file cannot be read, or is no tokenizer; there is no template.
    """
    home, content, vocabulary = folder, None, 256
    if corpus.tokenizer != BYTES:
        file = folder / corpus.tokenizer
        file = file / TOKENIZER if file.is_dir() else file
        content = read_tokenizer_file(file, "tokenizer")
        ids = parsed_tokenizer(content, f"tokenizer {file}").get_vocab(with_added_tokens=True).values()
        home, vocabulary = file.parent, max(ids, default=0) + 1
    if all(source.kind != "chat" for source in corpus.sources):
        return Setup(corpus.sources, content, vocabulary)
    config = {} if corpus.tokenizer == BYTES else tokenizer_config(home)
    template = corpus_template(corpus, folder, home, config)
    return Setup(corpus.sources, content, vocabulary, template, tuple(special_tokens(config).items()))


def corpus_template(corpus: CorpusSpec, folder: Path, home: Path, config: dict[str, Any]) -> str:
    """The template that the corpus names, or the tokenizer's. home: the tokenizer's folder; config: its configuration."""
    named = None if corpus.chat_template is None else folder / corpus.chat_template
    beside = home / TEMPLATE if corpus.tokenizer != BYTES else None
    file = named or (beside if beside is not None and beside.exists() else None)
    found = template_in(config) if file is None else read_template(file)
    if found is None:
        expected = f"{TEMPLATE} or a template in {TOKENIZER_CONFIG} beside the tokenizer, or a file that `chat_template` names"
        raise SpecError(Problem("chat_template", "no chat template for conversations", expected))
    return found


def tokenizer_config(home: Path) -> dict[str, Any]:
    file = home / TOKENIZER_CONFIG
    return read_json(file) if file.exists() else {}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
