"""docs/config-fields.md: how every field is used. `make schema` writes the page, and test_config_fields.py checks it."""

import re
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

import transformers

from tests.parity.config_differences import legend as differences
from tests.parity.config_fields import OUTCOMES, outcomes, silence
from tests.parity.config_folders import FOLDERS

PAGE = Path(__file__).parents[2] / "docs" / "config-fields.md"
INTRODUCTION = f"""# Fields of config.json

On this page you can look up how pairform uses each field of a checkpoint's `config.json`, by family, compared with transformers
{transformers.__version__}.

Both libraries load a small checkpoint of each family, once for each entry below, with this one field changed.
`field = value` means that the field was set to this value, whether or not the family's files usually contain it; `field` alone
means that it was removed. A field that is rejected with one value may be accepted with others: `num_hidden_layers` must match
the tensors. Of Gemma 4 and EmbeddingGemma 2 pairform reads the language model alone, so that the fields of `vision_config` and
`audio_config` are not listed for them.

{{outcomes}}

`make schema` generates this page. [tests/parity/test_config_fields.py](../tests/parity/test_config_fields.py) fails if a field
is missing, or if either library uses a field differently from what the page says.
"""
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
ROW = re.compile(r"^- \*\*(\w+)\*\*:(.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)


def wrapped(text: str) -> str:
    return textwrap.fill(text, 128, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def section(family: str, found: Mapping[str, str]) -> str:
    rows = [f"## {family}\n"]
    for outcome in OUTCOMES:
        names = sorted(name for name, what in found.items() if what == outcome)
        if names:
            rows.append(wrapped(f"- **{outcome}**: " + ", ".join(f"`{name}`" for name in names)))
    return "\n".join(rows) + "\n"


def page() -> str:
    """The page, from a run of every family (a minute). A difference without a reason is an error."""
    silence()
    with tempfile.TemporaryDirectory() as scratch:
        found = {family: outcomes(family, Path(scratch)) for family in FOLDERS}
    silent = [
        f"{family}: {name}: {what}" for family, own in found.items() for name, what in own.items() if what not in OUTCOMES
    ]
    if silent:
        raise ValueError("pairform and transformers differ:\n" + "\n".join(silent))
    legend = "\n".join(wrapped(f"- **{outcome}**: {meaning}.") for outcome, meaning in OUTCOMES.items())
    reasons = "\n".join(wrapped(f"- {names}: {reason}.") for names, reason in differences())
    introduction = INTRODUCTION.format(outcomes=f"{legend}\n\nThe differences:\n\n{reasons}")
    return "\n".join([introduction, *(section(family, own) for family, own in found.items())])


def committed() -> dict[str, dict[str, str]]:
    """The outcome of each mutation by family, as the committed page states it."""
    _, *parts = HEADING.split(PAGE.read_text("utf-8"))
    return {family: dict(entries(text)) for family, text in zip(parts[::2], parts[1::2], strict=True)}


def entries(text: str) -> list[tuple[str, str]]:
    rows = [(outcome, " ".join(names.split())) for outcome, names in ROW.findall(text)]
    return [(name, outcome) for outcome, names in rows for name in re.findall(r"`([^`]+)`", names)]
