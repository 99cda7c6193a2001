"""Which rows of a source's tables make those of another vocabulary."""

import re
from collections.abc import Mapping

from pairform.assemblies.checkpoints.reading.checkpoint import Checkpoint
from pairform.assemblies.initialisation.operations import ScaledRow, VocabularyRows
from pairform.assemblies.initialisation.options import Options
from pairform.assemblies.initialisation.pairing.pair import stack_of
from pairform.assemblies.initialisation.plan import NewVocabulary, Role, TargetRow
from pairform.assemblies.initialisation.rules.stacks import PARTS
from pairform.assemblies.initialisation.vocabulary.change import new_vocabulary
from pairform.assemblies.modeling.build import parameters_of
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import Problem, SpecError

VOCABULARY_TABLE = re.compile(r"(encoder|decoder)\.(embedding|layer_inputs)\.weight|head\.(weight|bias)")
"""The tensors with one row for each token."""


def new_vocabularies(sources: Mapping[Role, Checkpoint], options: Options) -> dict[Role, NewVocabulary]:
    """The change of each stack's vocabulary that the options ask for. Sources with the same folder have the same."""
    if options.vocabulary is None:
        return {}
    stacks = {role: source for role, source in sources.items() if role in PARTS}
    for role, source in stacks.items():
        stack = stack_of(source.spec, role)[1]
        if stack.layer_input is not None and stack.layer_input.table and options.layers(role) is not None:
            found = (
                "another vocabulary together with a choice of layers, each of which has columns in the table of layer inputs"
            )
            remedy = "Convert twice: first the layers, then the vocabulary."
            raise SpecError(Problem(f"vocabulary of the {role}", found, "one of both", remedy))
    folders = {source.folder: source for source in stacks.values()}
    made = {folder: new_vocabulary(source, options.vocabulary) for folder, source in folders.items()}
    return {role: made[source.folder] for role, source in stacks.items()}


def in_vocabulary(row: TargetRow, target: ModelSpec, changes: Mapping[Role, NewVocabulary]) -> TargetRow:
    """A row of the plan with the rows of the new vocabulary in place of the source's first ones."""
    if row.source is None or row.source.role not in changes:
        return row
    change, operation = changes[row.source.role], row.operation
    if isinstance(operation, ScaledRow):  # of a token by its new id
        (old, *_) = change.rows[operation.row]
        return row.model_copy(update={"operation": operation.model_copy(update={"row": old})})
    if not VOCABULARY_TABLE.fullmatch(row.target):
        return row
    if row.shape[0] != len(change.rows):
        found, expected = f"{row.shape[0]:,}", f"{len(change.rows):,}, the size of the new vocabulary"
        raise SpecError(Problem("vocabulary", found, expected))
    initial = parameters_of(target)[row.target].initial
    return row.model_copy(update={"operation": VocabularyRows(initial=initial)})
