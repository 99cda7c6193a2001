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
        "import sys; sys.argv = ['pairform', 'presets']; from pairform.cli import app; app(standalone_mode=False)",
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


def test_costs_of_every_preset_are_counted_without_the_compiler() -> None:
    """The smallest of each kind of layer: torch would import it for one operation that has no shape here."""
    presets = (
        "t5gemma-s-s",
        "t5gemma2-270m-270m",
        "gemma-3-4b",
        "t5-small",
        "mt5-small",
        "llama-3.2-1b",
        "qwen2.5-0.5b",
        "mistral-7b",
    )
    code = f"import pairform; [pairform.inspect(name).flops for name in {presets}]"
    assert imported(code) & {"torch._dynamo", "torch._inductor", "sympy"} == set()
