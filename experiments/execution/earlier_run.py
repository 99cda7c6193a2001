"""Whether a run may continue what an earlier one, perhaps of an earlier version, left in the folder of a study."""

from collections.abc import Mapping
from pathlib import Path

from pairform.assemblies.specs.model import ModelSpec
from pairform.experiments.results.records import DATA, LOCK, STUDY, Trial, trials_of
from pairform.experiments.study.spec import StudySpec
from pairform.registry import PARTIAL, OutputError, Problem, SpecError, freeze, read_json, thaw


def check_folder(out: Path, study: StudySpec, planned: list[Trial], digests: dict[str, str]) -> None:
    """Raise `OutputError` unless `out` is new, empty or holds only trials that this study plans too, on the same data."""
    if not (out / STUDY).is_file():
        partial = f".{STUDY}{PARTIAL}"  # a run that ended before it wrote the study leaves one, and the lock
        if out.exists() and (
            not out.is_dir() or any(item.name != LOCK and not item.name.startswith(partial) for item in out.iterdir())
        ):
            raise OutputError(Problem(str(out), "something that is no study", "a new or empty folder, or this study's"))
        return
    previous = StudySpec.read(read_json(out / STUDY), where=str(out / STUDY))
    recorded = read_json(out / DATA) if (out / DATA).is_file() else digests
    if previous.data == study.data and recorded != digests:
        names = ", ".join(sorted(name for name in {*recorded, *digests} if recorded.get(name) != digests.get(name)))
        remedy = "Restore them, or choose another folder with --out."
        raise OutputError(Problem(str(out), f"trials on other contents of {names}", "the files as they were", remedy))
    found, now_planned = trials_of(out), {trial.name: trial for trial in planned}
    check_sources(out, found, now_planned)
    other = [trial.name for trial in found if not same_plan(trial, now_planned.get(trial.name))]
    if other:
        remedy = "Choose another folder with --out, or remove this one."
        names = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        raise OutputError(Problem(str(out), f"trials that this study does not plan ({names})", "this study's", remedy))
    if found and previous.data != study.data:
        raise OutputError(Problem(str(out), "trials on other data", "this study's", "Choose another folder with --out."))
    before, now = ([each for each in one.measures if each.trained] for one in (previous, study))
    if before != now and any(trial.status == "done" for trial in found):
        remedy = "Choose another folder with --out: the weights of finished trials are not kept."
        raise OutputError(Problem(str(out), "trials with other measures", "this study's", remedy))


def check_sources(out: Path, found: list[Trial], planned: Mapping[str, Trial]) -> None:
    """Raise `OutputError` if trials started from other contents of the weight files that they are planned to start from."""
    changed = {
        name
        for old in found
        if (new := planned.get(old.name)) is not None and new.weights == old.weights
        for name, digest in old.digests.items()
        if new.digests.get(name) != digest
    }
    if changed:
        remedy = "Restore them, or choose another folder with --out."
        names = ", ".join(sorted(changed)[:3]) + (", ..." if len(changed) > 3 else "")
        raise OutputError(Problem(str(out), f"trials from other contents of {names}", "the files as they were", remedy))


def same_plan(found: Trial, planned: Trial | None) -> bool:
    """Whether a recorded trial is the planned one. Fields that were added since its version wrote it are not in its record: of
    the spec, which then have their defaults, and the sizes that were matched, which follow from its patches."""
    if planned is None or found.plan == planned.plan:
        return planned is not None
    try:
        spec = ModelSpec.read(thaw(found.spec)).document()
    except SpecError:
        return False
    return found.model_copy(update={"spec": freeze(spec), "match": found.match or planned.match}).plan == planned.plan
