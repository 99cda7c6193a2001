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
    """Draw a model: its stacks, the branches of their layers in order, norms, cross-attention, and repeated layers.

    Args:
        spec: as for `load_spec`.
        form: "svg", or "mermaid", which many Markdown viewers render.
        old: a spec to compare with: additions, removals and changes are marked.
        title: above the diagram; by default the assembly.

    Returns:
        The text of an SVG file or of a Mermaid flowchart.

    Raises:
        SpecError: a spec is invalid.
        InputError: the form is unknown.
    """
    if form not in tuple(FORMS):
        raise InputError(Problem("form", shorten(form), " or ".join(FORMS), suggest(form, FORMS)))
    return FORMS[form](draw(load_spec(spec), None if old is None else load_spec(old), title))
