"""Where a new model differs from its sources in what no weight shows."""

from collections.abc import Iterator, Mapping

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.initialisation.options import dtype_name
from pairform.assemblies.initialisation.pairing.source_layers import changed_source_layers
from pairform.assemblies.initialisation.plan import Edit, Role, TargetRow
from pairform.assemblies.initialisation.rules.stacks import Part, StackRules
from pairform.registry import difference


def edits(rules: Mapping[Part, StackRules]) -> Iterator[Edit]:
    """Where the new stacks, head and tokens differ from their sources in what no weight shows."""
    last = [*rules.values()][-1]
    target = last.target
    old, new = (
        {field: document.get(field) for field in ("tokens", "head", "bridge", "tie_embeddings")}
        for document in (last.checkpoint.spec.document(), target.document())
    )
    for part, rule in rules.items():
        old[part], new[part] = (
            model.stacks[name].document() | {"vocabulary": model.vocabulary_of(name)}
            for model, name in ((rule.checkpoint.spec, rule.source_part), (target, part))
        )
    for path, (before, after) in difference(old, new).items():
        yield Edit(path=path, before=before, after=after)
    if "encoder" in rules and "decoder" in rules:
        for path, was, now in changed_source_layers(target, rules["decoder"].move, rules["encoder"].move):
            yield Edit(path=path, before=was, after=now)


def dtype_edits(sources: Mapping[Role, Checkpoint], targets: tuple[TargetRow, ...]) -> Iterator[Edit]:
    """The sources whose dtype differs from the new model's."""
    dtype = targets[0].dtype
    for role, source in sources.items():
        if dtype_name(source.dtype) != dtype:
            yield Edit(path=f"{role}.dtype", before=dtype_name(source.dtype), after=dtype)
