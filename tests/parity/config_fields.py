"""Change, add and remove every field of config.json, and compare the effect in pairform with that in transformers.

`python -m tests.parity.config_fields FAMILY` prints the outcomes of a family; `make schema` writes docs/config-fields.md.
"""

import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor
from torch.nn import functional

import pairform
from pairform.assemblies.checkpoints.reading.model_folder import ModelFolder, errors_of
from tests.parity.compare import batch
from tests.parity.config_differences import differing
from tests.parity.config_folders import ABSENT, ADDED, FOLDERS, TOWERS, Mutation, mutations
from tests.parity.config_models import Models, distance, dropouts
from tests.parity.pictures import pictured, text

EQUAL = 2e-5
"""Relative to the largest value: above float32 rounding, below the effect of a changed field on wide random weights."""
OUTCOMES = {
    "used": "the field changes the results, or the dropout in training, in the same way in both libraries",
    "stored": "the field becomes part of the spec but does not change the results, as special tokens, maximum lengths and "
    "`initializer_range`",
    "ignored": "the field changes nothing in either library",
    "rejected": "pairform raises an error that names the field, or the tensors that are missing or have another shape",
    "differs": "pairform and transformers read the field differently, for the reason given below",
}
ALONE = json.dumps(ADDED["quantization_config"][0])
"""The end of mutations that do not change the spec but have an effect."""
QUIET = ("initializer_range", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
"""Fields that change the spec but should not change the results."""


RATES = ("p", "dropout", "attention_dropout", "activation_dropout", "layerdrop")
"""Attributes of transformers' modules that are dropout probabilities."""


class Result(NamedTuple):
    """The output of a model, and the dropout probabilities in it."""

    numbers: Tensor
    dropouts: frozenset[float]

    def equals(self, other: "Result") -> bool:
        return distance(self.numbers, other.numbers) <= EQUAL and self.dropouts == other.dropouts


class Comparison:
    """A small folder of one family, run with changed configurations."""

    def __init__(self, family: str, folder: Path) -> None:
        self.folder = FOLDERS[family](folder / family)
        (self.folder / "generation_config.json").unlink(
            missing_ok=True
        )  # its tokens would take precedence over those of config.json
        self.config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        (self.architecture,) = self.config["architectures"]
        self.differing = differing(family)
        files = ModelFolder(self.folder)
        assert files.family is not None
        self.spec, self.document = files.spec, files.family.document(files.config)
        pictures = any(stack.vision for stack in self.spec.stacks.values())
        self.inputs: dict[str, Any] = (pictured() if pictures else batch()).inputs
        self.theirs_alone = {"token_type_ids": (self.inputs["input_ids"] == 6).long()} if family == "gemma3" else {}
        if self.spec.assembly == "encoder_decoder":
            self.inputs |= (text(1) if pictures else batch(1)).decoder_inputs
        self.models = Models(self.load(), self.from_pretrained())
        self.before = self.ours(self.models.base)
        self.base = self.theirs(self.from_pretrained())

    @property
    def mutations(self) -> Iterator[Mutation]:
        """Of all fields, without those of towers for pictures and sound that pairform does not read."""
        pictures = any(stack.vision for stack in self.spec.stacks.values())
        return mutations({name: value for name, value in self.config.items() if pictures or name not in TOWERS})

    def load(self) -> pairform.Model:
        return pairform.load(self.folder, kernel="eager")

    def from_pretrained(self) -> Any:
        return getattr(transformers, self.architecture).from_pretrained(self.folder).eval()

    def ours(self, model: pairform.Model) -> Result:
        with torch.no_grad():
            output = model(**self.inputs)
        found = output.last_hidden_state if output.logits is None else output.logits
        assert found is not None
        return Result(found.float(), dropouts(model.spec.document()))

    def theirs(self, model: Any) -> Result:
        if self.architecture.startswith("T5GemmaFor"):  # its windows are one token wider than in training
            model.config.encoder.sliding_window -= 1
        with torch.no_grad():
            output = model(**self.inputs, **self.theirs_alone)
        rates = {getattr(module, name, 0.0) for module in model.modules() for name in RATES}
        found = output.last_hidden_state if getattr(output, "logits", None) is None else output.logits
        if self.spec.head.name == "sentence_embedding":  # which sentence-transformers computes
            found = functional.normalize(found.mean(1), dim=-1)
        return Result(found.float(), frozenset(rate for rate in rates if isinstance(rate, float)) - {0.0})

    def read(self, changes: Iterable[Mutation]) -> pairform.ModelSpec | None:
        """Write config.json with these changes, and read its spec; None if pairform refuses it."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(changed(self.config, changes)))
        files = ModelFolder(self.folder)
        try:
            assert files.family is not None
            with errors_of(path):
                document = files.family.document(files.config)
            # the spec follows from the document and the tensors, which are the same
            return self.spec if document == self.document else files.spec
        except pairform.PairformError:
            return None

    def may_differ(self, change: Mutation) -> bool:
        return str(change).endswith(self.differing)

    def outcome(self, changes: Sequence[Mutation]) -> str:
        """One of `OUTCOMES`, or how pairform and transformers differ."""
        spec = self.read(changes)
        if spec is None:
            return "rejected"
        kind = "ignored" if spec == self.spec else "stored"
        allowed = all(map(self.may_differ, changes))
        if kind == "stored" and not allowed and (ours := self.quickly(spec, changes)) is not None:
            return kind if ours.equals(self.before) else "used"
        try:
            ours = self.ours(self.load())
        except pairform.PairformError:
            return "rejected"
        try:
            theirs = self.theirs(self.from_pretrained())
        except Exception as error:
            return "differs" if allowed else f"transformers fails: {type(error).__name__}: {str(error)[:80]}"
        if not ours.equals(theirs):
            return "differs" if allowed else f"{distance(ours.numbers, theirs.numbers):.2g} apart: {ours[1:]}, {theirs[1:]}"
        return kind if ours.equals(self.before) else "used"

    def quickly(self, spec: pairform.ModelSpec, changes: Iterable[Mutation]) -> Result | None:
        """The result of both libraries where they agree over the weights in memory; None if the files must tell."""
        model = self.models.ours(spec)
        if model is None:
            return None
        try:
            ours, theirs = self.ours(model), self.theirs(self.models.theirs(changed(self.config, changes)))
        except Exception:
            return None
        return ours if ours.equals(theirs) else None


def changed(config: Mapping[str, Any], changes: Iterable[Mutation]) -> dict[str, Any]:
    made = copy.deepcopy(dict(config))
    for path, value in changes:
        holder = made
        for key in path[:-1]:
            holder = holder[key]
        if value is ABSENT:
            holder.pop(path[-1])
        else:
            holder[path[-1]] = value
    return made


def silence() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")


def outcomes(family: str, folder: Path) -> dict[str, str]:
    """The outcome of every mutation, by its text. Those that do not change the spec, and those of `QUIET`, run in groups."""
    comparison = Comparison(family, folder)
    assert comparison.before.equals(comparison.base)
    found: dict[str, str] = {}
    quiet: dict[str, list[Mutation]] = {"ignored": [], "stored": []}
    for mutation in comparison.mutations:
        spec = comparison.read([mutation])
        if spec is None:
            found[str(mutation)] = "rejected"
            continue
        settled = "ignored" if spec == comparison.spec else "stored"
        alone = comparison.may_differ(mutation) or str(mutation).endswith(ALONE)
        if alone or (settled == "stored" and mutation.path[-1] not in QUIET):
            found[str(mutation)] = comparison.outcome([mutation])
        else:
            quiet[settled].append(mutation)
    for expected, changes in quiet.items():
        for group in groups(changes):
            found |= halved(comparison, group, expected)
    return found


def halved(comparison: Comparison, group: list[Mutation], expected: str) -> dict[str, str]:
    """The outcome of each change: together if the group has the expected outcome, otherwise by halves."""
    outcome = comparison.outcome(group)
    if outcome == expected or len(group) == 1:
        return dict.fromkeys(map(str, group), outcome)
    middle = len(group) // 2
    return halved(comparison, group[:middle], expected) | halved(comparison, group[middle:], expected)


def groups(changes: Iterable[Mutation]) -> list[list[Mutation]]:
    """Groups of changes that can be made together: of separate fields, and either all or none remove a field."""
    made: list[list[Mutation]] = []
    for change in changes:
        group = next((group for group in made if all(apart(change, other) for other in group)), None)
        if group is None:
            made.append([change])
        else:
            group.append(change)
    return made


def apart(one: Mutation, other: Mutation) -> bool:
    short = min(len(one.path), len(other.path))
    return one.path[:short] != other.path[:short] and (one.value is ABSENT) == (other.value is ABSENT)


if __name__ == "__main__":
    silence()
    for family in sys.argv[1:] or FOLDERS:
        with tempfile.TemporaryDirectory() as scratch:
            for mutation, outcome in outcomes(family, Path(scratch)).items():
                print(f"{family}: {mutation}: {outcome}")
