"""Every block says what it computes, as a formula that the documentation can show."""

import re
from collections.abc import Iterator

import pytest
from latex2mathml.converter import convert

import pairform
from pairform.cli.block_docs import page
from tests.command_line.runner import CommandLine

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
BLOCKS = [(kind, name) for kind, registry in pairform.blocks().items() for name in registry]


def formulas(text: str) -> Iterator[str]:
    """What stands between dollar signs."""
    for displayed, inline in FORMULA.findall(text):
        yield displayed or inline


@pytest.mark.parametrize(("kind", "name"), BLOCKS)
def test_a_block_has_a_formula_that_can_be_shown(kind: str, name: str) -> None:
    text = page(kind, name).formula
    assert "formula" in vars(pairform.blocks(kind)[name].Spec), "inherited from another block"
    assert FORMULA.search(text) or (name == "none" and text.startswith("There is no formula"))
    assert "$" not in FORMULA.sub("", text), "a dollar sign without its other"
    assert not re.search(r"\\[^A-Za-z]", text), "Markdown drops a backslash before punctuation"
    for formula in formulas(text):
        # an unknown command stays in the result as it was written
        assert "\\" not in convert(formula), formula


def test_the_terminal_shows_no_latex(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command_line = CommandLine(monkeypatch, capsys)
    shown = command_line("blocks", "norm", "rmsnorm").out
    assert "Root mean square" in shown
    assert "frac" not in shown
    assert "\\frac" in command_line("blocks", "norm", "rmsnorm", "--json").out
