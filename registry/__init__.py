"""Names, specs and documents: everything that JSON can say, without building anything."""

from pairform.registry.documents import locate, presets, read_json, resolve
from pairform.registry.errors import (
    CheckpointError,
    InputError,
    OutputError,
    PairformError,
    Problem,
    SpecError,
    join_path,
    shorten,
)
from pairform.registry.merge import difference, merge_patch, parse_settings
from pairform.registry.registry import KINDS, Registry, build_block, register, registry_of
from pairform.registry.spec import (
    BlockSpec,
    FrozenDict,
    Pair,
    Patch,
    PositiveFloat,
    PositiveInt,
    Probability,
    Sizes,
    Slot,
    Spec,
    freeze,
    thaw,
)

__all__ = [
    "KINDS",
    "BlockSpec",
    "CheckpointError",
    "FrozenDict",
    "InputError",
    "OutputError",
    "Pair",
    "PairformError",
    "Patch",
    "PositiveFloat",
    "PositiveInt",
    "Probability",
    "Problem",
    "Registry",
    "Sizes",
    "Slot",
    "Spec",
    "SpecError",
    "build_block",
    "difference",
    "freeze",
    "join_path",
    "locate",
    "merge_patch",
    "parse_settings",
    "presets",
    "read_json",
    "register",
    "registry_of",
    "resolve",
    "shorten",
    "thaw",
]
