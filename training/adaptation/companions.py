"""The tokenizer and generation settings that a run keeps for the model that it exports, wherever its sources are by then."""

from pathlib import Path

from pairform.assemblies.checkpoints.reading.checkpoint import open_checkpoint
from pairform.assemblies.checkpoints.reading.file_names import PROVENANCE
from pairform.assemblies.checkpoints.writing.companions import (
    NO_SETTINGS,
    TOKENIZER,
    Companion,
    Companions,
    companions,
    companions_in,
)
from pairform.assemblies.checkpoints.writing.folder import new_folder
from pairform.assemblies.families.tokens import GENERATION
from pairform.registry.run_folders import write_json

FOLDER = "companions"
"""The folder of these files in a run's folder."""


def keep(run: Path, weights: Path | None, tokenizer: Path | None) -> None:
    """Copy the companions of the model that training starts from into the folder of a run, which must be there.

    weights:   the model's folder. None: it starts from new weights, and gets the data's tokenizer.
    tokenizer: that of the data; None: tokens are bytes.
    """
    if (run / FOLDER).exists():
        return
    if weights is not None:
        found = companions({"model": open_checkpoint(weights)})
    else:
        found = Companions() if tokenizer is None else Companions((Companion(tokenizer, TOKENIZER),))
    with new_folder(run / FOLDER, size=found.size) as folder:
        found.copy(folder)
        if found.generation is not None:
            (folder / GENERATION).write_bytes(found.generation)
        if found.bases:
            write_json(folder / PROVENANCE, {"bases": [base.document() for base in found.bases]})


def kept(run: Path) -> Companions:
    """The companions in the folder of a run."""
    return companions_in(run / FOLDER, NO_SETTINGS)
