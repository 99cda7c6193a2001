"""How a decoder's cross-attention is initialised (T5Gemma, arXiv 2504.06225, section 3.2), and options beyond the paper."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.initialisation.operations import Fresh
from pairform.assemblies.initialisation.pairing.compatibility import (
    CROSS,
    MERGED,
    OWN,
    self_attention_branch,
    weight_kind,
)
from pairform.assemblies.initialisation.plan import TargetRow
from pairform.assemblies.initialisation.rules.stacks import Planned, StackRules, Target, fresh
from pairform.assemblies.specs.model import LayerSpec, StackSpec
from pairform.assemblies.specs.shared import key_places
from pairform.blocks.functional.initializers import Constant
from pairform.registry import Problem, SpecError

SEPARATE = "block.source_"
"""The prefix of merged attention's separate projections of the source."""
KEYS = ("k_proj", "v_proj", "k_norm", "v_norm")
"""What attention without keys of its own lacks."""
GEOMETRY = ("heads", "kv_heads", "head_dim", "scale", "softcap", "bias", "qk_norm", "qk_norm_span")
NOT_SHAPE = ("mask", "kernel", "dropout", "lambda_init")


class DecoderRules(StackRules):
    """The rules of a decoder, whose source may have no cross-attention."""

    def make_in_branch(self, target: Target, index: int, branch: str, rest: str) -> Planned:
        layer, origin = self.stack.layers[index], self.source_stack.layers[self.layers[index]]
        if layer.branches[branch].name == MERGED and rest.startswith(SEPARATE):
            return self.separate_keys(target, index, branch, rest, origin)
        if layer.branches[branch].name != CROSS or self.inherits(origin, branch):
            return super().make_in_branch(target, index, branch, rest)
        if not rest.startswith("block."):
            return self.norm(target, index, branch, rest)
        return self.block(target, index, branch, rest)

    def from_own(self, target: Target, index: int, branch: str, rest: str) -> Planned:
        """From the same tensor in the self-attention of the source's layer."""
        layer = self.layers[index]
        own = self_attention_branch(self.source_stack.layers[layer])
        if own is None:
            return fresh(target)
        if rest.split(".")[1] in KEYS and (place := self.key_owners.get((layer, own))) is not None:
            # self-attention without keys of its own: from the layer whose keys it reads
            return self.from_source(target, f"{self.source_part}.layers.{place[0]}.{place[1]}.{rest}")
        return self.from_branch(target, index, branch, own, rest)

    @cached_property
    def key_owners(self) -> Mapping[tuple[int, str], tuple[int, str] | None]:
        return key_places(self.source_stack.layers, self.source_stack.width)

    def inherits(self, origin: LayerSpec, branch: str) -> bool:
        """Whether the source's own cross-attention is kept: its encoder must have had the same width, and the same bridge."""
        old, new = self.checkpoint.spec.encoder, self.target.encoder
        same = old is not None and new is not None and old.width == new.width
        same = same and self.checkpoint.spec.bridge == self.target.bridge
        return (
            self.options.cross_attention == "auto"
            and branch in origin.branches
            and origin.branches[branch].name == CROSS
            and same
        )

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        names = {branch.name for layer in self.stack.layers for branch in layer.branches.values()}
        mode = self.options.cross_attention
        if mode != "auto" and CROSS not in names and (mode == "zero_output" or self.target.bridge.name != "separate_keys"):
            expected = "auto: the decoder has no cross-attention with weights of its own"
            yield Problem("cross_attention", repr(mode), expected)

    def separate_keys(self, target: Target, index: int, branch: str, rest: str, origin: LayerSpec) -> Planned:
        """Merged attention's separate projections of the encoder: the source's, copies of its k_proj and v_proj, or drawn."""
        mode, encoder = self.options.cross_attention, self.checkpoint.spec.encoder
        kept = f"{self.source_part}.layers.{self.layers[index]}.{branch}.{rest}"
        if mode == "auto" and kept in self.checkpoint.tensors and encoder is not None and encoder.width == self.encoder.width:
            return self.from_source(target, kept)
        unfit = self.encoder.width != self.stack.width or weight_kind(origin.branches[branch]) != OWN
        if mode == "self_attention" and unfit:
            found = f"an encoder of width {self.encoder.width} beside a decoder of width {self.stack.width}"
            raise SpecError(Problem(CROSS, found, "one width, to copy self-attention", "Use auto or random."))
        if mode == "random" or unfit:
            return fresh(target)
        return self.from_source(target, kept.replace(SEPARATE, "block."))

    def norm(self, target: Target, index: int, branch: str, rest: str) -> Planned:
        """A norm around cross-attention: a copy of the one around self-attention, or the identity."""
        # the bias of a norm after the output projection would add to zeros
        silent_bias = self.options.cross_attention == "zero_output" and rest.endswith(".bias")
        if self.options.cross_attention_norms == "identity" or silent_bias:
            return fresh(target)
        return self.from_own(target, index, branch, rest)

    def block(self, target: Target, index: int, branch: str, rest: str) -> Planned:
        """Cross-attention itself: copied from self-attention, drawn, or with an output projection of zero."""
        mode, layer = self.options.cross_attention, self.stack.layers[index]
        unfit = self.disagreement(layer, branch)
        if mode == "self_attention" and unfit:
            remedy = "Use auto, random or zero_output."
            raise SpecError(Problem(CROSS, unfit, "widths and heads as in self-attention, to copy it", remedy))
        if mode == "zero_output":
            check_silent(layer, index)
            if rest.startswith("block.o_proj."):
                return Fresh(initial=Constant()), None
        if mode == "random" or unfit or (mode != "self_attention" and not self.same_configuration):
            return fresh(target)
        return self.from_own(target, index, branch, rest)

    def disagreement(self, layer: LayerSpec, branch: str) -> str | None:
        """Why cross-attention cannot be a copy of self-attention."""
        encoder = self.encoder
        if encoder.width != self.stack.width:
            return f"an encoder of width {encoder.width} beside a decoder of width {self.stack.width}"
        own = layer.branches.get(self_attention_branch(layer) or OWN)
        mine, theirs = {} if own is None else own.document(), layer.branches[branch].document()
        for field in GEOMETRY:
            if mine.get(field) != theirs.get(field):
                return f"{field} {theirs.get(field)} in cross-attention and {mine.get(field)} in self-attention"
        return None

    @cached_property
    def same_configuration(self) -> bool:
        """Whether encoder and decoder have one configuration, so that weights of self-attention suit the encoder's output."""
        return shape_of(self.encoder) == shape_of(self.stack)

    @property
    def encoder(self) -> StackSpec:
        assert self.target.encoder is not None, "cross-attention is only valid beside an encoder"
        return self.target.encoder


def advice(rules: DecoderRules, encoder: Checkpoint, targets: Iterable[TargetRow]) -> Iterator[str]:
    """What to consider before a conversion by these rules: a silent start, for sources of two families."""
    layers = [*enumerate(rules.stack.layers)]
    crossing = {index: name for index, layer in layers for name, block in layer.branches.items() if block.name == CROSS}
    outputs = {f"{rules.part}.layers.{index}.{name}.block.o_proj.weight" for index, name in crossing.items()}
    drawn = any(row.target in outputs and row.kind == "fresh" for row in targets)
    families = [source.family_name for source in (encoder, rules.checkpoint)]
    if rules.options.cross_attention != "auto" or not drawn or families[0] == families[1]:
        return
    try:
        for index in crossing:
            check_silent(rules.stack.layers[index], index)
    except SpecError:
        return
    yield (
        f"Cross-attention is newly initialised between two families, {' and '.join(families)}. With --cross-attention "
        "zero_output, the decoder starts as its source."
    )


def check_silent(layer: LayerSpec, index: int) -> None:
    """Check that a branch that adds zeros leaves the hidden states of a layer unchanged."""
    if layer.placement == "post":
        expected = "pre, inner_post or sandwich: a norm after the sum changes the hidden states even if the branch adds zeros"
        raise SpecError(Problem(f"decoder.layers[{index}].placement", "post", expected))
    if not layer.residual.keeps:
        expected = "one such as add, which leaves the hidden states unchanged if a branch adds zeros"
        raise SpecError(Problem(f"decoder.layers[{index}].residual", repr(layer.residual.name), expected))


def shape_of(stack: StackSpec) -> list[object]:
    """The width, and of each layer the branches other than cross-attention, without fields that no weight depends on."""
    branches = [
        {
            name: {field: value for field, value in spec.document().items() if field not in NOT_SHAPE}
            for name, spec in layer.branches.items()
            if spec.name != CROSS
        }
        for layer in stack.layers
    ]
    return [stack.width, branches]
