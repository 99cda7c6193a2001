"""A model's folder, in pairform's format or transformers': its files are read at most once, its spec is validated once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pairform.assemblies.checkpoints.reading.safetensors_file import StoredTensor
from pairform.assemblies.checkpoints.reading.sentence_modules import MODULES, SentenceModules, sentence_modules
from pairform.assemblies.checkpoints.reading.weights import INDEX, SINGLE, exists, same_values, stored_tensors
from pairform.assemblies.families import family_of_config
from pairform.assemblies.families.family import Family
from pairform.assemblies.families.tokens import GENERATION, generation_settings, with_generation_tokens
from pairform.assemblies.specs.generation import GenerationSpec
from pairform.assemblies.specs.model import ModelSpec
from pairform.assemblies.specs.tokens import TokenSpec
from pairform.registry import (
    SPEC_BYTES,
    CheckpointError,
    PairformError,
    Problem,
    SpecError,
    apply_patch,
    in_file,
    merge_patch,
    read_bytes,
    read_json,
    resolve,
)

PROJECTING = ("embedding_gemma2_text", "embedding_gemma2")
"""Families whose class in transformers projects each token, so that pooling and normalisation alone follow."""
SPEC, CONFIG = "spec.json", "config.json"
OURS = "pairform"
"""The name of pairform's own format."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a spec.json, or with a config.json of a known family."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; empty if there is none."""
        return read_json(self.path / CONFIG) if (self.path / CONFIG).exists() else {}

    @cached_property
    def family(self) -> Family | None:
        """The family that config.json names; None for pairform's own format."""
        if (self.path / SPEC).exists():
            return None
        path = self.path / CONFIG
        if not path.exists():
            raise CheckpointError(Problem(str(path), "no such file", f"a model's folder: {SPEC} or {CONFIG}"))
        with errors_of(path):
            return family_of_config(self.config)

    @cached_property
    def generation(self) -> bytes | None:
        """The content of generation_config.json; None if there is none."""
        path = self.path / GENERATION
        try:
            return read_bytes(path) if path.exists() else None
        except OSError as error:
            raise CheckpointError(Problem(str(path), error.strerror or str(error), "a readable JSON file")) from None

    @cached_property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by its name in the files (`stored_tensors`)."""
        return stored_tensors(self.path)

    @cached_property
    def modules(self) -> SentenceModules | None:
        """What follows the stack in a folder of sentence-transformers; None for other folders."""
        return sentence_modules(self.path)

    @cached_property
    def spec(self) -> ModelSpec:
        """The spec, with the head that `modules` compute, if there are any."""
        spec = self.stored_spec
        if self.modules is None:
            return spec
        if spec.assembly == "encoder_decoder":
            found = "an encoder-decoder, of which sentence-transformers reads the encoder"
            raise CheckpointError(Problem(str(self.path / CONFIG), found, "the encoder alone, which `extract` writes"))
        head = self.modules.head
        if self.projects:
            head = head | {"projection": spec.head.document().get("projection")}
            if self.modules.tensors:
                raise CheckpointError(
                    Problem(str(self.path / MODULES), "a Dense", "none: the stack's class projects each token")
                )
        with errors_of(self.path / MODULES):
            return ModelSpec.read(spec.document() | {"head": head})

    @property
    def projects(self) -> bool:
        """Whether the stack's class projects each token, so that the projection is among its tensors."""
        return self.family is not None and self.family.model_type in PROJECTING

    @cached_property
    def stored_spec(self) -> ModelSpec:
        """The spec without `modules`.

        Special tokens are those of generation_config.json, else of config.json, as in transformers.

        Raises:
            CheckpointError: a configuration of transformers' cannot be read as a spec; it names the file.
            SpecError: spec.json is invalid.
        """
        if self.family is None:
            document = read_json(self.path / SPEC, SPEC_BYTES)
            return read_document(document, self.path, str(self.path / SPEC), None, confined=True)
        path, settings = self.path / CONFIG, self.path / GENERATION
        with errors_of(path):
            document = self.family.document(self.config)
        tokens = document["tokens"]
        if self.generation is not None:
            with errors_of(settings):
                tokens = with_generation_tokens(tokens, read_json(settings, content=self.generation))
        untied = merge_patch(document, self._untying(document, self.family))
        with errors_of(path):
            try:
                spec = ModelSpec.read(untied | {"tokens": tokens})
            except SpecError as error:
                if tokens != document["tokens"] and all(problem.where.startswith("tokens") for problem in error.problems):
                    raise CheckpointError(in_file(str(settings), error)) from None
                raise
            if tokens != document["tokens"]:  # those of config.json are wrong too if they are no tokens of the vocabulary
                replaced = spec.model_copy(update={"tokens": TokenSpec.read(document["tokens"])})
                if problems := list(replaced.check_tokens()):
                    raise SpecError(problems)
        return spec

    @cached_property
    def settings(self) -> GenerationSpec:
        """The settings of generation: those of generation_config.json, else of config.json in transformers' format.

        Raises:
            CheckpointError: they are invalid; it names the file.
        """
        generates = self.spec.decoder is not None and self.spec.head.name == "lm"
        if not generates or (self.generation is None and self.family is None):
            return GenerationSpec()
        path = self.path / (CONFIG if self.generation is None else GENERATION)
        with errors_of(path):
            found = self.config if self.generation is None else read_json(path, content=self.generation)
            return generation_settings(found, self.spec)

    def _untying(self, document: Mapping[str, Any], family: Family) -> dict[str, Any]:
        """A merge patch for a configuration that ties tables of which the file holds two that differ, or that does not say
        which tensors there are.

        Merged adapters with a trained head leave such files. As in transformers 5, both tables are kept, and equal ones stay
        tied. Nothing is untied in a folder without readable weights: whoever loads them reports what is wrong.
        """
        tensors: Mapping[str, StoredTensor] = {}
        if any(exists(self.path / name) for name in (SINGLE, INDEX)):
            with suppress(CheckpointError, OSError):
                tensors = self.tensors
        # embeddings and head are the tensors outside the layers, which T5 calls blocks
        tables = {name: tensor for name, tensor in tensors.items() if ".layers." not in name and ".block." not in name}
        for copy, name in family.copies.items():
            if not same_values(tables, copy, name):
                found, expected = f"another table than {name}", "the same: the model that is built has one for both"
                raise CheckpointError(Problem(tables[copy].place, found, expected))
        ours = {mine: tables[name] for name in tables if family.reads(name) and (mine := family.ours(name)) is not None}
        tie, tied = document["head"].get("tie"), document.get("tie_embeddings", False)
        by_names = family.by_names if tensors else None
        patch: dict[str, Any] = {} if by_names is None else by_names(document, set(tensors))
        if tie is not None and not same_values(ours, "head.weight", f"{'encoder' if tied else tie}.embedding.weight"):
            patch["head"] = {"tie": None}
        own = [name for name in ours if name.startswith("decoder.embedding.")]
        if tied and not all(same_values(ours, name, name.replace("decoder.", "encoder.", 1)) for name in own):
            patch["tie_embeddings"] = False
        return patch


def read_document(
    document: Mapping[str, Any], folder: Path, name: str, patch: Mapping[str, Any] | None, *, confined: bool = False
) -> ModelSpec:
    """Resolve, patch and validate a document.

    Args:
        folder: anchors relative paths in `extends`.
        name: the file's, for errors.
        patch: a JSON merge patch.
        confined: as for `resolve`.
    """
    try:
        resolved = resolve(ModelSpec, document, folder, confined=confined)
        return ModelSpec.read(resolved if patch is None else apply_patch(ModelSpec, resolved, patch, Path()))
    except SpecError as error:
        raise SpecError(in_file(name, error)) from None


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Report errors in reading a file of transformers' as a spec as a `CheckpointError` that names the file."""
    try:
        yield
    except PairformError as error:
        raise CheckpointError(in_file(str(path), error)) from None
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        found = f"{type(error).__name__}: {error}"
        raise CheckpointError(Problem(str(path), found, "a configuration as transformers writes it")) from None
