"""Diagrams of specs."""

from collections.abc import Callable, Mapping
from typing import Literal

from pairform.assemblies.analysis.diagrams.drawing import draw
from pairform.assemblies.analysis.diagrams.mermaid import mermaid
from pairform.assemblies.analysis.diagrams.parts import Diagram
from pairform.assemblies.analysis.diagrams.svg import svg
from pairform.assemblies.checkpoints.reading.load_spec import Ref, load_spec
from pairform.registry import InputError, Problem, shorten, suggest

Form = Literal["mermaid", "svg"]
FORMS: Mapping[Form, Callable[[Diagram], str]] = {"mermaid": mermaid, "svg": svg}


def diagram(spec: Ref, form: Form = "svg", *, old: Ref | None = None, title: str = "") -> str:
    """A drawing of a model: its stacks, the branches of their layers in order, norms, what attends to what, and repetition.

    form: svg, or mermaid, which many places that show Markdown draw.
    old:  a model that `spec` is compared with: what was added, removed or changed is marked.
    """
    if form not in tuple(FORMS):
        raise InputError(Problem("form", shorten(form), " or ".join(FORMS), suggest(form, FORMS)))
    return FORMS[form](draw(load_spec(spec), None if old is None else load_spec(old), title))
