"""Where a tokenizer's chat template is: a file beside it, or its configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pairform.registry import Problem, SpecError, read_json, read_text

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
"""Where transformers keeps a tokenizer's chat template, in the order in which it looks for one."""
TEMPLATE_BYTES = 1 << 20
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_model_template(folder: Path, part: str, file: Path | None = None) -> tuple[str, dict[str, str]]:
    """The chat template of a model's folder for the tokenizer of the stack `part`, and the special tokens that it may name.

    file: a template to use instead of the folder's.

    Raises:
        SpecError: there is no template, or it cannot be read.
        CheckpointError: a link out of the folder.
    """
    # here, since it imports torch, which the processes that encode a corpus do without
    from pairform.assemblies.checkpoints.writing.companions import resolved, tokenizer_file

    home = Path(tokenizer_file(folder, part)).parent
    settings = resolved(folder, str(home / TOKENIZER_CONFIG))
    config = {} if settings is None else read_json(settings)
    chosen = file or resolved(folder, str(home / TEMPLATE))
    text = template_in(config) if chosen is None else read_template(chosen)
    if text is None:
        expected = f"{TEMPLATE} or a template in {TOKENIZER_CONFIG}"
        remedy = "Give one with --template FILE."
        raise SpecError(Problem(str(folder / home), "no chat template", expected, remedy))
    return text, special_tokens(config)


def read_template(file: Path) -> str:
    """The template in a file; `SpecError` if it cannot be read."""
    try:
        return read_text(file, TEMPLATE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or str(error)
        raise SpecError(Problem("chat_template", f"{file}: {found}", "a file with a chat template")) from None


def template_in(config: Mapping[str, Any]) -> str | None:
    """The template in a tokenizer's configuration: of several, the one named "default"."""
    found = config.get("chat_template")
    if isinstance(found, list):
        found = next((each.get("template") for each in found if isinstance(each, dict) and each.get("name") == "default"), None)
    return found if isinstance(found, str) else None


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens in a tokenizer's configuration, each a string or an object with it."""
    values = {name: config.get(name) for name in SPECIAL}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in values.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
