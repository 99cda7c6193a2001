"""The parts of a diagram from one spec, or from two that are compared."""

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

from pairform.assemblies.analysis.diagrams.folding import Loop, Run, fold
from pairform.assemblies.analysis.diagrams.parts import OUTPUT, Card, Column, Diagram, Layer, Mark, ParallelGroup
from pairform.assemblies.analysis.diagrams.phrases import changes, phrases
from pairform.assemblies.specs.layer import LayerSpec
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.stack import StackSpec, VisionSpec
from pairform.blocks.attention.mask_spec import AttentionFields
from pairform.registry import BlockSpec, Sizes, Spec, registry_of

DRAWN = {"embedding", "position", "embedding_norm", "layer", "cycle", "overrides", "final_norm", "vision"}
"""Fields of a stack that are drawn separately."""
PARTS = {"encoder", "decoder", "bridge", "head"}
"""The same of a model."""


def draw(spec: ModelSpec, old: ModelSpec | None = None, title: str = "") -> Diagram:
    """A diagram of `spec`; with `old`, of both, with the changes marked."""
    before = spec if old is None else old
    names = [name for name in ("encoder", "decoder") if name in {**before.stacks, **spec.stacks}]
    columns = [draw_in(name, spec, before) for name in names]
    last = columns[-1]
    columns[-1] = replace(last, below=(*last.below, *block("head", before.head, spec.head)))
    if "encoder" in names and {before.bridge.name, spec.bridge.name} != {"none"}:
        columns[0] = replace(columns[0], below=(*columns[0].below, *block("bridge", before.bridge, spec.bridge)))
    heading = title or spec.assembly.replace("_", "-")
    return Diagram(heading, tuple(columns), spec.tie_embeddings, changes_outside(PARTS, before, spec))


def draw_alone(stack: StackSpec) -> Diagram:
    """A diagram of a stack without a model: what reads an encoder's output is drawn as in a decoder beside one."""
    sizes = Sizes(stack.width, stack.width, source_depth=stack.depth)
    return Diagram("stack", (draw_stack("layers", stack, stack, sizes),))


def draw_in(name: str, spec: ModelSpec, old: ModelSpec) -> Column:
    """The stack called `name` of a model, compared with that of another."""
    new, before = spec.stacks.get(name), old.stacks.get(name)
    return draw_stack(name, new, before, (spec if new else old).sizes(name))


def draw_stack(name: str, new: StackSpec | None, before: StackSpec | None, sizes: Sizes) -> Column:
    known = new or before
    assert known is not None, "one of a pair"
    embeddings, positions, first_norms, visions, norms = (
        [getattr(stack, field, None) for stack in (before, new)]
        for field in ("embedding", "position", "embedding_norm", "vision", "norm")
    )
    added = (*block("position", *positions), *block("norm", *first_norms))
    return Column(
        name=name,
        size=f"width {known.width:,}, {known.depth} layer{'' if known.depth == 1 else 's'}",
        above=(*block("embedding", *embeddings), *added, *vision(*visions)),
        loops=tuple(layers(before, new, sizes)),
        below=tuple(block("norm", *norms)),
        mark="" if before and new else mark(before, new),
        notes=changes_outside(DRAWN, before, new),
    )


def layers(old: StackSpec | None, new: StackSpec | None, sizes: Sizes) -> Iterator[Loop[Layer]]:
    """Layers with equal numbers are compared. Equal layers with equal changes are drawn once."""
    olds: Sequence[LayerSpec | None] = old.layers if old else ()
    news: Sequence[LayerSpec | None] = new.layers if new else ()
    for loop in fold(list(itertools.zip_longest(olds, news))):
        runs = tuple(Run(layer(*run.item, sizes, marked=bool(old and new)), run.times, run.places) for run in loop.runs)
        yield Loop(loop.times, runs)


def layer(old: LayerSpec | None, new: LayerSpec | None, sizes: Sizes, *, marked: bool) -> Layer:
    known = new or old
    assert known is not None, "one of a pair"
    names = [tuple(group) for group in known.parallel_groups]
    if old and new:
        for name in old.present:
            if name not in new.branches:  # drawn before the branch that followed it
                followers = set(old.present[old.present.index(name) + 1 :])
                place = next((index for index, group in enumerate(names) if followers & set(group)), len(names))
                names.insert(place, (name,))
    join = "" if known.residual.name == "add" else known.residual.name
    notes = changes_outside({"branches", "order"} if in_same_order(old, new) else {"branches"}, old, new)
    whole: Mark = mark(old, new) if marked and not (old and new) else "changed" if notes else ""
    groups = [
        # a norm after the sum stands in layers without parallel branches
        ParallelGroup(tuple(branch(name, old, new, sizes) for name in group), join, norm_after(group[0], known))
        for group in names
    ]
    return Layer(tuple(groups), whole, notes)


def norm_after(branch: str, known: LayerSpec) -> str | None:
    """The name of the norm after the sum, if the layer has one there."""
    return known.norm_of(branch).name if known.placement == "post" else None


def in_same_order(old: LayerSpec | None, new: LayerSpec | None) -> bool:
    """Whether the branches that both layers have are in the same order."""
    if old is None or new is None:
        return False
    return [name for name in old.present if name in new.branches] == [name for name in new.present if name in old.branches]


def branch(name: str, old: LayerSpec | None, new: LayerSpec | None, sizes: Sizes) -> Card:
    holder = new if new and name in new.branches else old
    assert holder is not None, "named by one of them"
    pair = [spec.branches.get(name) if spec else None for spec in (old, new)]
    compared = pair if old and new else [holder.branches[name]] * 2
    (card,) = block(name, *compared)
    norm = holder.norm_of(name).name
    placed = {"pre": (norm, None), "post": (None, None), "inner_post": (None, norm), "sandwich": (norm, norm)}
    norms = placed[holder.placement]
    spec = holder.branches[name]
    source = source_of(spec, sizes)
    if spec.name in registry_of("attention"):
        own = AttentionFields.of(spec).mask is not None or not source
        parts = [part for part, there in (("own tokens", own), (f"the encoder's {source}", source)) if there]
        card = replace(card, phrases=(f"reads {' and '.join(parts)}", *card.phrases))
    return replace(card, norms=norms, source="" if card.mark == "removed" else source)


def source_of(spec: BlockSpec, sizes: Sizes) -> str:
    """What a branch reads of the encoder. A branch that reads it refuses a stack without a source."""
    if sizes.source_width is None or spec.name not in registry_of("attention"):
        return ""
    known = set(spec.check(sizes))
    if all(problem in known for problem in spec.check(replace(sizes, source_width=None))):
        return ""
    layer = AttentionFields.of(spec).source_layer
    return {"last": OUTPUT, "matching": "matching layer"}.get(str(layer), f"layer {layer}")


def block(place: str, old: BlockSpec | None, new: BlockSpec | None) -> Iterator[Card]:
    """The card of the block at `place`, if there is one."""
    known = new or old
    if known is None:
        return
    title = place.replace("_", " ") + (f": {known.name}" if known.name != place else "")
    yield Card(title, tuple(phrases(known)), tuple(altered(old, new)) if old and new else (), mark(old, new))


def altered(old: BlockSpec, new: BlockSpec) -> list[str]:
    """The changes of a block; if it replaced another block, of the fields that both have."""
    if old.name == new.name:
        return changes(old.document(), new.document())
    only_one_has = set(old.document()) ^ set(new.document())
    return [f"instead of {old.name}", *changes_outside({"name"} | only_one_has, old, new)]


def vision(old: VisionSpec | None, new: VisionSpec | None) -> Iterator[Card]:
    known = new or old
    if known is None:
        return
    tower = known.tower
    lines = [f"{tower.depth} layers of width {tower.width:,}", tower.embedding.name]
    lines += ["frozen"] if known.frozen else []
    lines.append(f"{known.projector.name} to image tokens")
    yield Card("pictures", tuple(lines), changes_outside(set(), old, new), mark(old, new))


def changes_outside(fields: Set[str], old: Spec | None, new: Spec | None) -> tuple[str, ...]:
    """The differences of two specs in all but these fields; none if one of them is missing."""
    if old is None or new is None:
        return ()
    documents = ({key: value for key, value in spec.document().items() if key not in fields} for spec in (old, new))
    return tuple(changes(*documents))


def mark(old: Any, new: Any) -> Mark:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    return "" if old == new else "changed"
