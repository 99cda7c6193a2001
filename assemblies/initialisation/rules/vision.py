"""How the vision tower, its projector and the bridge are initialised."""

from collections.abc import Iterator, Mapping

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.initialisation.operations import Copy
from pairform.assemblies.initialisation.pairing.pair import vision_of
from pairform.assemblies.initialisation.plan import Role, Source
from pairform.assemblies.initialisation.rules.stacks import Planned, Target, fresh
from pairform.assemblies.specs.canonical import canonical_stack
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, difference

VISION = ".vision."


def vision_source(part: str, sources: Mapping[Role, Checkpoint]) -> tuple[Role, Checkpoint] | None:
    """The source of a stack's tower: the one given for vision, else the stack's own if it has one."""
    for role, checkpoint in sources.items():
        reads = any(stack.vision is not None for stack in checkpoint.spec.stacks.values())
        if role == "vision" or (role in (part, "model") and "vision" not in sources and reads):
            return role, checkpoint
    return None


def check_vision(spec: ModelSpec, sources: Mapping[Role, Checkpoint]) -> Iterator[Problem]:
    """Where a tower differs from its source's."""
    for part, stack in spec.stacks.items():
        found = vision_source(part, sources)
        if stack.vision is None or found is None:
            continue
        _, checkpoint = found
        origin = vision_of(checkpoint.spec)[1].tower
        for path, (old, new) in difference(canonical_stack(origin, 0), canonical_stack(stack.vision.tower, 0)).items():
            yield Problem(f"{part}.vision.tower.{path}", repr(new), f"{old!r}, as in {checkpoint.folder}")


def vision_rule(target: Target, sources: Mapping[Role, Checkpoint]) -> Planned:
    """A copy of the tower, and of the projector if the stack is as wide as its source; drawn without a source."""
    part, _, rest = target.name.partition(VISION)
    found = vision_source(part, sources)
    if found is None:
        return fresh(target)
    role, checkpoint = found
    name = f"{vision_of(checkpoint.spec)[0]}{VISION}{rest}"
    stored = checkpoint.tensors.get(name)
    if stored is None or stored.shape != target.shape:
        return fresh(target)
    return Copy(), Source(role=role, tensor=name)


def bridge_rule(target: Target, spec: ModelSpec, sources: Mapping[Role, Checkpoint]) -> Planned:
    """A copy of the bridge of the decoder's source if it has the same widths; else drawn."""
    for role, checkpoint in sources.items():
        stored = checkpoint.tensors.get(target.name) if role in ("decoder", "model") else None
        if stored is not None and stored.shape == target.shape and checkpoint.spec.bridge == spec.bridge:
            return Copy(), Source(role=role, tensor=target.name)
    return fresh(target)
