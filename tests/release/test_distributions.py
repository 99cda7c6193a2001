"""What the sdist and the wheel hold, and what their metadata says."""

import csv
import io
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.version import Version

import pairform
from tests.release.conftest import Built
from tests.release.distributions import ROOT, build

PACKAGES = ("assemblies", "blocks", "experiments", "interop", "registry", "training")
"""Folders of the repository to which pairform/ links."""


def files_in(wheel: Path) -> dict[str, str]:
    """Each file with its hash, from the wheel's record, which has none of its own."""
    with zipfile.ZipFile(wheel) as archive:
        [record] = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        return {name: digest for name, digest, _ in csv.reader(io.StringIO(archive.read(record).decode())) if digest}


def committed(*folders: str) -> set[str]:
    """The repository's files in some folders."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(built: Built) -> None:
    expected = {f"pairform/{name}" for name in committed(*PACKAGES)} | committed("pairform")
    found = set(files_in(built.wheel))
    info = f"pairform-{pairform.__version__}.dist-info/"
    assert {name for name in found if not name.startswith(info)} == expected
    assert {f"{info}licenses/LICENSE", f"{info}METADATA", f"{info}entry_points.txt"} <= found
    for data in ("py.typed", "registry/presets/t5gemma-2b-2b.json", "registry/pairform.schema.json"):
        assert f"pairform/{data}" in found
    with zipfile.ZipFile(built.wheel) as archive:
        assert not any(entry.external_attr >> 28 == 0xA for entry in archive.infolist()), "a symbolic link"


def test_the_wheel_built_from_the_sdist_is_the_one_built_from_the_tree(built: Built, tmp_path: Path) -> None:
    [wheel] = build(built.tree, tmp_path, "--wheel")
    assert files_in(wheel) == files_in(built.wheel)


def test_the_sdist_holds_what_a_build_needs_and_no_tests(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO"} <= names
    assert {name for name in names if name.startswith("pairform/")} == {
        name for name in files_in(built.wheel) if name.startswith("pairform/")
    }
    assert {name.partition("/")[0] for name in names if "/" in name} == {"pairform", "pairform.egg-info"}


def test_the_metadata_is_valid(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        text = archive.read(f"pairform-{pairform.__version__}.dist-info/METADATA")
    metadata = Metadata.from_email(text, validate=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert metadata.version == Version(pairform.__version__)
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description is not None
    assert metadata.description.startswith("# pairform")
    assert metadata.provides_extra == list(project["optional-dependencies"])


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CITATION.cff"])
def test_files_for_readers_name_the_version(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    line = f"## [{pairform.__version__}] - " if name == "CHANGELOG.md" else f"version: {pairform.__version__}\n"
    assert line in text
