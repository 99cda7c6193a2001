"""The notebooks run in a new kernel, in any folder, and their stored outputs are what they print now."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import MEASURED, METADATA, NOTEBOOKS, ROOT, executed
from tests.pages import LINK

needs_a_kernel = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("ipykernel", "nbclient")), reason="ipykernel or nbclient is not installed"
)


def read(notebook: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(notebook.read_text("utf-8"))
    return document


def joined(text: str | list[str]) -> str:
    """Files have text as lists of lines."""
    return text if isinstance(text, str) else "".join(text)


def outputs(notebook: Any) -> list[dict[str, str]]:
    """By cell of code, its texts by type; of a measured cell, their types alone."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            texts = {"stream": "".join(joined(output.get("text", "")) for output in cell["outputs"])}
            texts |= {kind: joined(text) for output in cell["outputs"] for kind, text in output.get("data", {}).items()}
            measured = MEASURED in cell["metadata"].get("tags", ())
            found.append({kind: "" if measured else text for kind, text in texts.items()})
    return found


def test_there_are_three_notebooks() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["convert", "declare", "study"]


@needs_a_kernel
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_stored_outputs_are_current(notebook: Path, tmp_path: Path) -> None:
    """`python -m tests.notebooks` stores them anew."""
    assert outputs(executed(notebook, tmp_path)) == outputs(read(notebook))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_traces_of_a_machine(notebook: Path) -> None:
    document = read(notebook)
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert document["metadata"] == METADATA
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(set(cell["metadata"]) <= {"tags"} for cell in document["cells"])
    assert not any(
        output.get("name") == "stderr" or output["output_type"] == "error" for cell in code for output in cell["outputs"]
    )
    text = notebook.read_text("utf-8")
    assert not any(trace in text for trace in (str(ROOT), "/home/", "/root/", "/tmp/", "site-packages"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_somewhere(notebook: Path) -> None:
    text = "".join(joined(cell["source"]) for cell in read(notebook)["cells"] if cell["cell_type"] == "markdown")
    assert [target for target in LINK.findall(text) if not (notebook.parent / target).exists()] == []
    assert "](../" in text
