"""Every field of every family's config.json is used, ignored or rejected as docs/config-fields.md says."""

from pathlib import Path

import pytest

from pairform.assemblies.families import FAMILIES
from tests.parity.config_differences import differing
from tests.parity.config_fields import outcomes
from tests.parity.config_folders import FOLDERS
from tests.parity.config_page import committed


@pytest.mark.filterwarnings("ignore:.*is not read, as in transformers")
@pytest.mark.parametrize("family", FOLDERS)
def test_every_field_is_read_as_the_page_says(family: str, tmp_path: Path) -> None:
    found, expected = outcomes(family, tmp_path), committed()[family]
    changed = {name: (what, expected.get(name)) for name, what in found.items() if what != expected.get(name)}
    assert changed == {}, "if this is meant, `make schema` writes the page anew"
    assert found.keys() == expected.keys()


def test_only_differences_that_have_a_reason_are_on_the_page() -> None:
    found = [(family, name) for family, own in committed().items() for name, what in own.items() if what == "differs"]
    assert found
    assert [(family, name) for family, name in found if not name.endswith(differing(family))] == []


def test_every_family_is_on_the_page() -> None:
    assert committed().keys() == FOLDERS.keys() == FAMILIES.keys()
