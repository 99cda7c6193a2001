"""Specs: immutable data that describe blocks, and slots, the fields that contain another block's spec."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, Strict, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from pairform.registry.errors import Problem, SpecError, cut_end, shorten
from pairform.registry.registry import find_block
from pairform.registry.validation import nested, problems_in

LIMIT = 2**30
"""Upper bound of integers, so that torch can count the bytes of any tensor with these sizes."""
PositiveInt = Annotated[int, Field(gt=0, lt=LIMIT)]
MOST_LAYERS = 1000
"""Upper bound of a stack's depth: layers are built one by one, about a hundred a second. DeepNet has a thousand."""
Depth = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class FrozenDict(dict[str, Any]):
    """An immutable dict, so that specs can be hashed and shared."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("specs are immutable: use pairform.patch(spec, {...}) to get a changed one")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    # by default copies and pickles are filled item by item, which is refused
    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (dict(self),))


def freeze(value: object) -> Any:
    """`value` with every dict inside it frozen and every list a tuple."""
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: object) -> Any:
    """The inverse of `freeze`: plain dicts and lists, as in JSON."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [thaw(item) for item in value]
    return value


Patch = Annotated[dict[str, Any], AfterValidator(freeze)]
"""A JSON merge patch, validated when it is applied."""

Pair = Annotated[tuple[Annotated[int, Field(ge=0, lt=LIMIT)], Annotated[int, Field(ge=0, lt=LIMIT)]], Strict(False)]
"""Two non-negative integers, a list in JSON."""

REPR = 120
"""Length in characters of a spec's `repr`."""


class Spec(BaseModel):
    """Base of all specs: immutable data. Unknown fields and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, defer_build=True)

    @classmethod
    def read(cls, document: object, *, where: str = "") -> Self:
        """Validate a document.

        Args:
            document: The spec as JSON data.
            where: Prefix of the paths in errors.

        Returns:
            The validated spec.

        Raises:
            SpecError: with the path of everything that is wrong.
        """
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise SpecError(list(problems_in(error, document, cls, where))) from None

    def document(self) -> dict[str, Any]:
        """The expanded form, with defaults and without nulls. `read(spec.document()) == spec`."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def __repr__(self) -> str:
        """One short line; `document()` is complete."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        text = ", ".join(f"{name}={shorten(value, REPR)}" for name, value in fields if value is not None)
        return f"{type(self).__qualname__}({cut_end(text, REPR)})"

    def __str__(self) -> str:
        return repr(self)


@dataclass(frozen=True)
class Sizes:
    """What a block gets from its parent when it is built, so that specs need not repeat it.

    width:         channels of the hidden states.
    source_width:  channels of the other hidden states that the block reads: an encoder's output, or a vision tower's.
    source_length: their number, if the architecture fixes it (the patches of a picture).
    source_keys:   whether merged attention projects its source with its own weights (shared) or with separate ones.
    source_depth:  number of layers of the encoder that a decoder reads.
    vocabulary:    number of token ids.
    pad:           the padding token.
    depth:         number of layers of the block's stack.
    layer:         number of the block's layer, from 0.
    decoder_depth: number of layers of the decoder that reads the block's stack.
    heads:         number of query heads of the attention that a position belongs to.
    """

    width: int
    source_width: int | None = None
    vocabulary: int | None = None
    pad: int | None = None
    source_length: int | None = None
    source_keys: Literal["shared", "separate"] = "shared"
    source_depth: int | None = None
    depth: int = 1
    layer: int = 0
    decoder_depth: int | None = None
    heads: int | None = None


class BlockSpec(Spec):
    """Base of the spec beside each block class. Subclasses narrow `name` to a `Literal` with a default.

    Attributes:
        pools: of a head: it gives one result for each row, so that rows of several documents are refused.
        keeps: of a residual: it leaves the hidden states as they are where a branch adds zeros.
        placements: of a residual: the placements of norms that it works with.
        formula: what the block computes, for the catalogue: Markdown with LaTeX between dollar signs. A backslash before
            punctuation is lost in some Markdown viewers.
    """

    pools: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    placements: ClassVar[tuple[str, ...]] = ("pre", "post", "inner_post", "sandwich")
    formula: ClassVar[str] = ""

    name: str

    @classmethod
    def of(cls, block: "BlockSpec | None") -> Self:
        """`block` with the fields of this class: itself, if it is of this class.

        For a block of another class (as another package may have) or None, those of the fields that it has and this class's
        defaults for the others.
        """
        if isinstance(block, cls):
            return block
        own = {} if block is None else {field: value for field, value in block if field in cls.model_fields}
        return cls.model_construct(**({"name": "none"} | own))

    @classmethod
    def example(cls) -> dict[str, Any]:
        """A minimal document of the block: required fields have the first of their `examples`; `SpecError` without one."""
        document: dict[str, Any] = {"name": cls.model_fields["name"].default}
        for field, info in cls.model_fields.items():
            if info.is_required():
                if not info.examples:
                    raise SpecError(Problem(field, "a required field without examples", "Field(examples=[...])"))
                document[field] = info.examples[0]
        return document

    def check(self, sizes: Sizes) -> Iterator[Problem]:
        """Problems of this spec in a parent with these sizes; paths are relative to this spec."""
        yield from ()

    def sited(self, sizes: Sizes) -> dict[str, Any]:
        """Values that this spec derives from its layer's number and the stacks' depths, as the merge patch that sets them.

        Layers that move to another position keep them (see `assemblies.specs.depth_dependent`).
        """
        return {}


SLOT_KEY = "x-pairform-slot"
"""Key of a slot's name in a JSON Schema made by pydantic."""


class Slot:
    """Marks a spec field that contains a registered block of one of `kinds`: `Annotated[BlockSpec, Slot("norm")]`."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds

    @property
    def definition(self) -> str:
        """The name of this slot in a JSON Schema's `$defs`."""
        return "slot." + "-or-".join(self.kinds)

    def validate(self, value: object) -> BlockSpec:
        """The spec of the block that a document names. Problems are raised as an error for pydantic."""
        if isinstance(value, BlockSpec):
            value = value.document()
        if not isinstance(value, Mapping):
            wanted = " or ".join(self.kinds)
            raise nested([Problem("", shorten(value), f'an object that names a block of kind {wanted}, as {{"name": ...}}')])
        try:
            block = find_block(value.get("name"), self.kinds)
        except SpecError as error:
            raise nested(error.problems) from None
        try:
            spec: BlockSpec = block.Spec.model_validate(thaw(value))
        except ValidationError as error:
            raise nested(problems_in(error, value, block.Spec)) from None
        return spec

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(lambda spec: spec.document())
        return core_schema.no_info_plain_validator_function(self.validate, serialization=dump)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {SLOT_KEY: self.definition}
