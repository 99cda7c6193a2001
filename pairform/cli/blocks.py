"""The command `blocks`, and docs/blocks.md."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pairform.cli.block_docs import PAPER
from pairform.cli.options import Json, print_json

if TYPE_CHECKING:
    from pairform.cli.block_docs import Page

HEAD = r"""# Blocks

Look up here which blocks a spec can name: the formula, paper, tensor shapes and options of each, and a minimal example.
`make schema` generates this page from the registry. The command line shows the same without formulas and pictures, and includes
the blocks of other installed packages. From the repository's root:

```console
$ make install
$ source .venv/bin/activate
$ pairform blocks norm
norm: normalises hidden states along the width
...
$ pairform blocks norm rmsnorm
norm rmsnorm
...
$ pairform blocks norm rmsnrm
error: name: found 'rmsnrm', expected one of norm: ... Did you mean 'rmsnorm'?
```

`--json` prints JSON. [Declare](declare.md) shows whole documents, [ablate](ablate.md) how to swap a block,
[extend](extend.md) how to add one. An option without a default may be omitted unless it is required.

In the formulas, $x$ is the hidden state of a token, with $d$ channels (the width), and $y$ is the block's output. $W$, $b$ and
$g$ are learned weights, biases and scales, $\odot$ multiplies channel by channel, and $\sigma$ is the sigmoid. $f$ is a branch:
its block and the norms around it. In attention, $i$ counts queries and $j$ keys, $z$ is a token of the source, and $s_{ij}$ is
a score, the input of the softmax. $\ell$ are logits.
"""


def blocks(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="A kind, such as norm or attention; by default, all kinds.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A block of that kind, such as rmsnorm: its paper, shapes and options."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the blocks that a spec can name, or describe one."""
    from pairform import blocks as registries
    from pairform.cli.block_docs import page
    from pairform.cli.display.printing import block_rows, print_blocks

    found = {kind: registry_named(kind)} if kind else registries()
    if kind and name:
        one = page(kind, name)
        print_json(asdict(one)) if as_json else print_page(one)
    elif as_json:
        print_json({kind: block_rows(registry) for kind, registry in found.items()})
    else:
        print_blocks(found)


def registry_named(kind: str) -> Any:
    """The registry of `kind`. Given a block's name instead, the error names its kind."""
    from pairform import blocks as registries
    from pairform.registry import Problem, SpecError

    kinds = [each for each, registry in registries().items() if kind in registry]
    if kind not in registries() and kinds:
        remedy = " or ".join(f"`pairform blocks {each} {kind}`" for each in kinds)
        raise SpecError(Problem("kind", f"{kind!r}, a block's name", "a kind before it", f"Run {remedy}."))
    return registries(kind)


def print_page(page: "Page") -> None:
    from pairform.cli.display.printing import Sheet, console

    console.print(f"{page.kind} {page.name}", style="bold")
    console.print(f"\n{page.text}\n")
    facts = Sheet(show_header=False)
    for label, text in facts_of(page).items():
        if text:
            facts.add_row(label, text)
    console.print(facts)
    if page.options:
        table = Sheet()
        for column in ("option", "type", "default", ""):
            table.add_column(column, no_wrap=column == "option")
        for option in page.options:
            default = "required" if option.required else option.default or ""
            table.add_row(option.path, option.type, default, option.says)
        console.print()
        console.print(table)


def facts_of(page: "Page") -> dict[str, str]:
    """What the page shows between a block's text and its options."""
    return {
        "paper": ", ".join(f"https://arxiv.org/abs/{paper}" for paper in page.papers),
        "shapes": page.shapes,
        "used as": "; ".join(page.fits),
        "not allowed in": "; ".join(page.refused),
        "example": json.dumps(page.example),
    }


def markdown(figures: Mapping[str, str]) -> str:
    """docs/blocks.md: all kinds, all blocks.

    Args:
        figures: descriptions of pictures, by kind and name: `docs/figures/blocks/KIND-NAME.svg` shows the block.
    """
    from pairform import blocks as registries
    from pairform.cli.block_docs import page

    lines = [HEAD, "| kind | blocks |", "|---|---|"]
    for kind, registry in registries().items():
        names = ", ".join(f"[{name}](#{kind}-{name})" for name in registry)
        lines.append(f"| [{kind}](#{kind}): {registry.summary} | {names} |")
    for kind, registry in registries().items():
        pages = [page(kind, name) for name in registry]
        lines += [
            "",
            f"## {kind}",
            "",
            f"{registry.summary[0].upper()}{registry.summary[1:]}. Used as: {'; '.join(pages[0].fits)}.",
        ]
        for each in pages:
            lines += ["", *section(each, figures.get(f"{kind}-{each.name}"))]
    return "\n".join(lines) + "\n"


def section(page: "Page", figure: str | None) -> list[str]:
    lines = [f"### {page.kind} {page.name}", "", linked(page.text), ""]
    if page.formula:
        lines += [page.formula, ""]
    if figure:
        lines += [f"![{figure}](figures/blocks/{page.kind}-{page.name}.svg)", ""]
    lines.append(f"Shapes: {page.shapes}. Example: `{json.dumps(page.example)}`")
    if page.refused:
        lines += ["", f"Not allowed in {'; in '.join(page.refused)}."]
    if page.options:
        lines += ["", "| option | type | default | |", "|---|---|---|---|"]
        for option in page.options:
            default = "required" if option.required else f"`{option.default}`" if option.default else ""
            says = linked(option.says).replace("|", "\\|")
            lines.append(f"| `{option.path}` | {option.type} | {default} | {says} |")
    return lines


def linked(text: str) -> str:
    """`text` with each paper as a link."""
    return PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)
