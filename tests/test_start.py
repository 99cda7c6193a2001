"""What a start does without: modules that take long to import are imported by what needs them."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "safetensors", "huggingface_hub", "transformers", "torchao", "PIL", "tokenizers", "rich")


def imported(code: str) -> set[str]:
    """The modules that a fresh process has imported once it has run `code`."""
    shown = "; print(*__import__('sys').modules, file=__import__('sys').stderr)"
    ran = subprocess.run([sys.executable, "-c", code + shown], capture_output=True, text=True, check=True)
    return set(ran.stderr.split())


@pytest.mark.parametrize(
    "code",
    [
        "import pairform",
        "import pairform; pairform.presets(); pairform.PairformError",
        "import sys; sys.argv = ['pairform', 'presets']; from pairform.cli.main import app; app(standalone_mode=False)",
    ],
    ids=["import", "presets", "command"],
)
def test_presets_are_listed_without_torch(code: str) -> None:
    assert imported(code) & set(HEAVY) == set()


def test_public_functions_wait_for_no_compiler_and_no_optional_package() -> None:
    names = "load, save, build, plan, convert, verify, export, extract, inspect, load_spec, diff, patch, schema"
    used = ", ".join(f"pairform.{name}" for name in names.split(", "))
    unwanted = {"torch._dynamo", "torch._inductor", "sympy", "transformers", "torchao", "PIL", "tokenizers", "rich", "typer"}
    assert imported(f"import pairform; {used}") & unwanted == set()


def test_garbage_is_collected_after_an_import_as_before() -> None:
    for state in ("enable", "disable"):
        begin = f"import gc, pairform; gc.{state}(); before = gc.isenabled()"
        imported(f"{begin}; pairform.ModelSpec; assert gc.isenabled() == before")
