"""The licence of a published model: what its bases ask for."""

from collections.abc import Sequence

from pairform.assemblies.checkpoints.writing.bases import GEMMA, WORD, Base, joint_license
from pairform.interop.hub.escaping import code
from pairform.registry import InputError, Problem, shorten

NOTICE = "NOTICE"
TERMS = "ai.google.dev/gemma/terms"
GEMMA_NOTICE = f"Gemma is provided under and subject to the Gemma Terms of Use found at {TERMS}"
"""The text that the terms (section 3.1) ask for in a file NOTICE."""
MODIFIED = "The model files in this repository were modified: their weights derive from those of Gemma."
POLICY = "https://ai.google.dev/gemma/prohibited_use_policy"


def check_license(license: str | None) -> str | None:
    """A licence as the hub names it, in lower case."""
    if license is not None and (not isinstance(license, str) or not WORD.fullmatch(license)):
        expected = "the hub's name of a licence, such as apache-2.0 or gemma"
        raise InputError(Problem("license", shorten(license), expected, "See https://hf.co/docs/hub/repositories-licenses."))
    return None if license is None else license.lower()


def under_gemma(bases: Sequence[Base]) -> bool:
    """Whether Gemma's terms bind a model of these bases."""
    return joint_license(bases) == GEMMA


def notice() -> bytes:
    return f"{GEMMA_NOTICE}.\n\n{MODIFIED}\n".encode()


def section(bases: Sequence[Base], license: str | None) -> list[str]:
    """The card's paragraphs on the licence. license: as the author states it."""
    own = license or joint_license(bases)
    said = [f"The weights are under the licence {code(own)}." if own else unknown(bases)]
    if under_gemma(bases):
        binding = f"Whoever uses or passes on this model is bound by these terms and by the [prohibited use policy]({POLICY})."
        said = [*said, f"{GEMMA_NOTICE.replace(TERMS, f'[{TERMS}](https://{TERMS})')}. {MODIFIED} {binding}"]
    return said


def unknown(bases: Sequence[Base]) -> str:
    stated = sorted({base.license for base in bases if base.license is not None})
    found = f" Those that are known: {', '.join(map(code, stated))}." if stated else ""
    return f"The licence is not stated, and does not follow from what the model was made of.{found} Ask its author."
