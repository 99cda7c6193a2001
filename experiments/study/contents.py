"""What the trials of a study read: its data, and the files of its measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.evaluation.gathering import Placed, gather_measures
from pairform.experiments.results.records import MEASURED
from pairform.experiments.study.spec import StudySpec
from pairform.training.data.batches import Contents, Examples


@dataclass(frozen=True)
class StudyContents:
    """The contents of all files of a study, read once for all variants."""

    data: Contents
    measures: list[Placed]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file that was read, by its path relative to the study's folder; a measure's after `MEASURED`."""
        found = {name: each for one in self.measures for name, each in one.gathered.digests.items()}
        return self.data.digests | {MEASURED + name: each for name, each in found.items()}

    def open(self, spec: ModelSpec) -> Examples:
        """The data in a model's token ids; `SpecError` if its vocabulary is too small."""
        return self.data.open(spec)

    @classmethod
    def of(cls, contents: "StudyContents | Contents") -> Self:
        """The contents of a study that has no files besides its data, or the same."""
        return contents if isinstance(contents, cls) else cls(contents, [])


def gather(study: StudySpec, folder: Path) -> StudyContents:
    """Read the files of a study.

    Args:
        study: The study.
        folder: Folder to which their paths are relative.

    Raises:
        SpecError: a file is missing, empty or wrong.
    """
    data = study.data.gather(folder)
    return StudyContents(data, gather_measures(study.measures, folder, data))
