"""The notebooks of docs/notebooks: executed in a new kernel and folder, with outputs that do not depend on the machine.

`python -m tests.notebooks` executes them and stores their outputs.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MEASURED = "measured"
"""Tag of a cell whose output depends on the machine, such as losses."""
KERNEL = {
    "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3",
    "language": "python",
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def executed(notebook: Path, folder: Path) -> Any:
    """The notebook after all cells ran in a new kernel of this interpreter. folder: for what its cells write."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    read = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as own:  # a short path, as sockets need
        kernel = Path(own) / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(json.dumps(KERNEL))
        known = KernelSpecManager(kernel_dirs=[str(kernel.parent)], ensure_native_kernel=False)
        manager = AsyncKernelManager(kernel_spec_manager=known, transport="ipc", ip=f"{own}/socket")
        where = {"metadata": {"path": str(folder)}}
        client = NotebookClient(read, km=manager, timeout=300, record_timing=False, resources=where)
        client.execute(env=environment | {"IPYTHONDIR": f"{own}/ipython"})
    return clean(read)


def clean(notebook: Any) -> Any:
    """Without what differs from machine to machine: times, and what other packages warn of."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def text_of(notebook: Any) -> str:
    import nbformat

    return str(nbformat.writes(notebook, indent=1)) + "\n"  # type: ignore[no-untyped-call]
