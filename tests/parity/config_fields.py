"""Change, add and remove every field of config.json, and compare the effect in pairform with that in transformers.

`python -m tests.parity.config_fields FAMILY` prints the outcomes of a family; `make schema` writes docs/config-fields.md.
"""

import copy
import json
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

import pairform
from tests.parity.compare import batch
from tests.parity.config_folders import ABSENT, ADDED, FOLDERS, Mutation, mutations
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
DIFFERENCES = {
    'dtype = "bfloat16"': "pairform keeps the dtype of the files unless `load(dtype=)` is given; transformers converts weights",
    "hidden_activation = null": "pairform uses the default; transformers 5.23 raises an error",
    **dict.fromkeys(
        ("encoder_layerdrop = 0.25", "decoder_layerdrop = 0.25"),
        "transformers drops whole layers in training; pairform does not, and warns",
    ),
    **dict.fromkeys(
        ("encoder_layerdrop", "decoder_layerdrop"),
        "M2M-100's default rate is not 0; transformers drops whole layers in training",
    ),
    **dict.fromkeys(
        ("max_position_embeddings", "max_position_embeddings = 41"),
        "Pegasus' files hold a table of sines of this length, which transformers reads; pairform computes the sines",
    ),
    "text_config.dropout_rate": "pairform uses 0 if it is absent; transformers has no default for encoders alone, and fails",
}
"""Mutations that may differ, by the end of their text, with the reason."""
ALONE = (*DIFFERENCES, json.dumps(ADDED["quantization_config"][0]))
"""Mutations that do not change the spec but have an effect, by the end of their text."""
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
        pictures = "vision_config" in self.config or "vision_config" in self.config.get("encoder", {})
        self.inputs: dict[str, Any] = (pictured() if pictures else batch()).inputs
        self.theirs_alone = {"token_type_ids": (self.inputs["input_ids"] == 6).long()} if family == "gemma3" else {}
        self.spec = pairform.load_spec(self.folder)
        if self.spec.assembly == "encoder_decoder":
            self.inputs |= (text(1) if pictures else batch(1)).decoder_inputs
        self.before = self.ours()
        self.base = self.theirs()

    def ours(self) -> Result:
        model = pairform.load(self.folder, kernel="eager")
        with torch.no_grad():
            output = model(**self.inputs)
        found = output.last_hidden_state if output.logits is None else output.logits
        assert found is not None
        return Result(found.float(), frozenset(dropouts(model.spec.document())) - {0.0})

    def theirs(self) -> Result:
        model: Any = getattr(transformers, self.architecture).from_pretrained(self.folder).eval()
        if self.architecture.startswith("T5GemmaFor"):  # its windows are one token wider than in training
            model.config.encoder.sliding_window -= 1
        with torch.no_grad():
            output = model(**self.inputs, **self.theirs_alone)
        rates = {getattr(module, name, 0.0) for module in model.modules() for name in RATES}
        found = output.last_hidden_state if getattr(output, "logits", None) is None else output.logits
        return Result(found.float(), frozenset(rate for rate in rates if isinstance(rate, float)) - {0.0})

    def write(self, changes: Iterable[Mutation]) -> None:
        (self.folder / "config.json").write_text(json.dumps(changed(self.config, changes)))

    def settled(self, change: Mutation) -> str:
        """The outcome as far as the spec alone determines it: stored, ignored or rejected."""
        self.write([change])
        try:
            return "ignored" if pairform.load_spec(self.folder) == self.spec else "stored"
        except pairform.PairformError:
            return "rejected"

    def outcome(self, changes: Iterable[Mutation]) -> str:
        """One of `OUTCOMES`, or how pairform and transformers differ."""
        changes = list(changes)
        self.write(changes)
        allowed = all(str(change).endswith(tuple(DIFFERENCES)) for change in changes)
        try:
            stored = pairform.load_spec(self.folder) != self.spec
            ours = self.ours()
        except pairform.PairformError:
            return "rejected"
        try:
            theirs = self.theirs()
        except Exception as error:
            return "differs" if allowed else f"transformers fails: {type(error).__name__}: {str(error)[:80]}"
        if not ours.equals(theirs):
            return "differs" if allowed else f"{distance(ours.numbers, theirs.numbers):.2g} apart: {ours[1:]}, {theirs[1:]}"
        return "used" if not ours.equals(self.before) else "stored" if stored else "ignored"


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


def dropouts(document: Any) -> Iterable[float]:
    """All dropout probabilities in a spec."""
    if isinstance(document, Mapping):
        for key, value in document.items():
            yield from [float(value)] if key == "dropout" else dropouts(value)
    elif isinstance(document, list):
        for value in document:
            yield from dropouts(value)


def distance(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max())


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
    for mutation in mutations(comparison.config):
        settled = comparison.settled(mutation)
        if settled == "rejected":
            found[str(mutation)] = settled
        elif str(mutation).endswith(ALONE) or (settled == "stored" and mutation.path[-1] not in QUIET):
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
