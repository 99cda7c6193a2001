"""Where the tensors come from that stand beside the stacks: the vision tower's, its projector's, the bridge's."""

from collections.abc import Iterator, Mapping

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.initialisation.pairing.pair import vision_of
from pairform.assemblies.initialisation.plan import Copy, Role, Source
from pairform.assemblies.initialisation.rules.stacks import Made, Target, fresh
from pairform.assemblies.specs.canonical import canonical_stack
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, difference

VISION = ".vision."


def vision_source(part: str, sources: Mapping[Role, Checkpoint]) -> tuple[Role, Checkpoint] | None:
    """The source whose tower a stack gets: the one for vision alone, or the stack's own if it reads pictures."""
    for role, checkpoint in sources.items():
        reads = any(stack.vision is not None for stack in checkpoint.spec.stacks.values())
        if role == "vision" or (role == part and "vision" not in sources and reads):
            return role, checkpoint
    return None


def check_vision(spec: ModelSpec, sources: Mapping[Role, Checkpoint]) -> Iterator[Problem]:
    """Where a tower differs from the one in its source."""
    for part, stack in spec.stacks.items():
        found = vision_source(part, sources)
        if stack.vision is None or found is None:
            continue
        _, checkpoint = found
        origin = vision_of(checkpoint.spec)[1].tower
        for path, (old, new) in difference(canonical_stack(origin, 0), canonical_stack(stack.vision.tower, 0)).items():
            yield Problem(f"{part}.vision.tower.{path}", repr(new), f"{old!r}, as in {checkpoint.folder}")


def vision_rule(target: Target, sources: Mapping[Role, Checkpoint]) -> Made:
    """The tower as it is; the projector too, where the text is as wide as in its source; fresh without a source."""
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


def bridge_rule(target: Target, spec: ModelSpec, sources: Mapping[Role, Checkpoint]) -> Made:
    """The bridge of the decoder's source where it led over the same widths; else fresh."""
    checkpoint = sources.get("decoder")
    stored = None if checkpoint is None else checkpoint.tensors.get(target.name)
    if checkpoint is None or stored is None or stored.shape != target.shape or checkpoint.spec.bridge != spec.bridge:
        return fresh(target)
    return Copy(), Source(role="decoder", tensor=target.name)
