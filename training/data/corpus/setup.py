"""What the documents of a corpus are encoded with: the tokenizer and the chat template."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pairform.assemblies.preprocessing.tokenizers import parsed_tokenizer
from pairform.registry import Problem, SpecError, read_json, read_text
from pairform.training.data.corpus.manifest import BYTES, TOKENIZER, TokenizerRecord
from pairform.training.data.corpus.spec import CorpusSpec, SourceSpec
from pairform.training.data.tokenizer_files import read_tokenizer_file

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
"""Where transformers keeps a tokenizer's chat template, in the order in which it looks for one."""
TEMPLATE_BYTES = 1 << 20
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


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
    special = {name: text for name in SPECIAL if (text := token_text(config.get(name))) is not None}
    template = read_template(corpus, folder, home, config)
    return Setup(corpus.sources, content, vocabulary, template, tuple(special.items()))


def read_template(corpus: CorpusSpec, folder: Path, home: Path, config: dict[str, Any]) -> str:
    """The template that the corpus names, or the tokenizer's. home: the tokenizer's folder; config: its configuration."""
    named = None if corpus.chat_template is None else folder / corpus.chat_template
    beside = home / TEMPLATE if corpus.tokenizer != BYTES else None
    file = named or (beside if beside is not None and beside.exists() else None)
    if file is not None:
        try:
            return read_text(file, TEMPLATE_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            found = getattr(error, "strerror", None) or str(error)
            raise SpecError(Problem("chat_template", f"{file}: {found}", "a file with a chat template")) from None
    found = config.get("chat_template")
    if isinstance(found, list):  # named templates
        found = next((each.get("template") for each in found if isinstance(each, dict) and each.get("name") == "default"), None)
    if not isinstance(found, str):
        expected = f"{TEMPLATE} or a template in {TOKENIZER_CONFIG} beside the tokenizer, or a file that `chat_template` names"
        raise SpecError(Problem("chat_template", "no chat template for conversations", expected))
    return found


def tokenizer_config(home: Path) -> dict[str, Any]:
    file = home / TOKENIZER_CONFIG
    return read_json(file) if file.exists() else {}


def token_text(value: object) -> str | None:
    """A special token in a tokenizer's configuration: a string, or an object with it."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
