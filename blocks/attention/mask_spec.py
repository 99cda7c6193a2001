"""The part of a mask that an architecture fixes."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pairform.registry import BlockSpec, Pair, Problem, Scales, Spec, nested


class MaskSpec(Spec):
    """The part of a mask that an architecture fixes."""

    causal: bool = Field(default=False, description="Mask the tokens after each query.")
    window: Annotated[Pair | None, Scales("window")] = Field(
        default=None,
        description="Number of tokens before and after itself that a query attends to, as `[before, after]`. Default: all. "
        "With `causal`, tokens after it are masked in any case.",
    )
    prefix: bool = Field(
        default=False,
        description="Let the tokens of a row's prefix attend to each other in both directions despite `causal`; each call "
        "gives the prefix's length (prefix LM; Raffel et al. 2020, arXiv 1910.10683, section 3.2.1).",
    )

    @model_validator(mode="after")
    def _a_prefix_sees_ahead(self) -> Self:
        problems = []
        if self.prefix and not self.causal:
            remedy = "Set causal to true, or leave prefix out: every token attends to later ones."
            problems.append(Problem("prefix", "true in a mask that is not causal", "a causal mask", remedy))
        if self.prefix and self.window is not None and self.window[1] == 0:
            expected = "1 or more to the right: how far a token attends ahead within its prefix"
            problems.append(Problem("window", f"{list(self.window)} with a prefix", expected))
        if problems:
            raise nested(problems)
        return self


class AttentionFields(BlockSpec):
    """The fields of attention blocks that other parts of the library read, through `AttentionFields.of`. Each attention block
    declares those it has; a block without a mask does not attend to its own sequence."""

    heads: int = 1
    kv_heads: int | None = None
    head_dim: int | None = None
    qk_norm: BlockSpec | None = None
    qk_norm_span: str = "head"
    value_norm: BlockSpec | None = None
    keys_as_values: bool = False
    share_keys: bool = False
    bias: bool | str = False
    dropout: float = 0.0
    position: BlockSpec | None = None
    mask: MaskSpec | None = None
    source_layer: int | str = "last"
