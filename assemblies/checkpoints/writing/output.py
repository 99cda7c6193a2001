"""Writing a model's folder: spec or config.json, weights, provenance and the files taken over from sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pairform.assemblies.checkpoints.reading.model_folder import CONFIG, OURS, SPEC
from pairform.assemblies.checkpoints.writing.companions import Companions
from pairform.assemblies.checkpoints.writing.config_file import config_document
from pairform.assemblies.checkpoints.writing.contents import PROVENANCE, record_of
from pairform.assemblies.checkpoints.writing.folder import new_folder
from pairform.assemblies.checkpoints.writing.joined import joined
from pairform.assemblies.checkpoints.writing.shards import Entry, Progress, silent, write_json, write_tensors
from pairform.assemblies.families import family_of_spec
from pairform.assemblies.families.tokens import GENERATION, with_generation_tokens, with_spec_tokens
from pairform.assemblies.specs.model import ModelSpec
from pairform.registry import OutputError, Problem, SpecError, read_json, shorten

Format = Literal["pairform", "transformers"]


@dataclass(frozen=True)
class Output:
    """A folder to write, and how, as in the arguments of `convert`.

    Attributes:
        path: a new or empty folder.
        format: "pairform", or "transformers".
        max_shard_size: of each weight file, in bytes or as "5GB".
        overwrite: replace a model in `path`.
        progress: called with the bytes just written and the bytes in all.
    """

    path: str | Path
    format: Format = "pairform"
    max_shard_size: int | str = "5GB"
    overwrite: bool = False
    progress: Progress = silent

    def write(
        self, spec: ModelSpec, entries: Sequence[Entry], provenance: Mapping[str, Any], beside: Companions | None = None
    ) -> int:
        """Write a model whole or not at all.

        Args:
            entries: the tensors, by our names.
            provenance: where they come from; the record of what was written is added.
            beside: what is taken over from sources.

        Returns:
            The number of bytes of the weights.

        Raises:
            SpecError: transformers cannot express the spec.
            OutputError: another format, or the folder cannot be written.
        """
        entries = self.named(spec, entries)
        beside = beside or Companions()
        dtypes = {str(entry.dtype).removeprefix("torch.") for entry in entries}
        dtype = dtypes.pop() if len(dtypes) == 1 else None
        documents: dict[str, dict[str, Any]]
        if self.format == OURS:
            documents = {SPEC: spec.document(), CONFIG: config_document(spec, dtype)}
        else:
            _, config = family_of_spec(spec)
            documents = {CONFIG: config | ({} if dtype is None else {"dtype": dtype})}
        size = sum(entry.size for entry in entries)
        room = size + beside.size
        with new_folder(self.path, overwrite=self.overwrite, sources=beside.folders, size=room) as folder:
            beside.copy(folder)
            self.write_generation(folder / GENERATION, spec, beside)
            for file, document in documents.items():
                write_json(folder / file, document, sort_keys=file == CONFIG)
            checksums = write_tensors(folder, entries, max_shard_size=self.max_shard_size, progress=self.progress)
            # last, since it has the digests of the other files
            bases = {"bases": [base.document() for base in beside.bases]} if beside.bases else {}
            write_json(folder / PROVENANCE, {**provenance, **bases, **record_of(folder, entries, checksums)})
        return size

    def named(self, spec: ModelSpec, entries: Sequence[Entry]) -> list[Entry]:
        """The tensors as the format has them."""
        if not isinstance(self.format, str) or self.format not in get_args(Format):
            raise OutputError(Problem("format", shorten(self.format), f"one of {', '.join(get_args(Format))}"))
        if self.format == OURS:
            return list(entries)
        family, _ = family_of_spec(spec)
        return joined(entries, family, spec)

    def write_generation(self, path: Path, spec: ModelSpec, beside: Companions) -> None:
        """Write generation settings: those of a model in memory, then the spec's tokens, then the source's, if any.

        transformers takes tokens from this file, and from config.json only without it. In our format they are in spec.json too:
        there a source's file is copied unless its tokens or the settings of a model in memory differ, and without settings
        there is no file.
        """
        source, own = beside.generation, beside.settings.given()
        if spec.decoder is None or spec.head.name != "lm" or (source is None and not own and self.format == OURS):
            return
        try:
            settings = {} if source is None else read_json(path, content=source)
        except SpecError as error:
            problem = error.problems[0]
            raise OutputError(Problem(f"{GENERATION} of the source", problem.found, problem.expected)) from None
        tokens = spec.tokens.document()
        if own or source is None or self.format != OURS or with_generation_tokens(tokens, settings) != tokens:
            write_json(path, with_spec_tokens(settings, spec) | own, sort_keys=True)
        else:
            path.write_bytes(source)
