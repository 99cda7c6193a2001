"""Each example does what it says."""

import json
import runpy
from pathlib import Path

import jsonschema
import pytest

import pairform
from tests.demo import made_demo
from tests.registries import forget_new_blocks

EXAMPLES = Path(__file__).parents[1] / "examples"
SPECS = [file for file in sorted(EXAMPLES.glob("*.json")) if "variants" not in json.loads(file.read_text())]
CROSS_27B_2B = 26 * (2 * 2304 * 8 * 256 + 2 * 4608 * 4 * 256)


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_new_blocks(monkeypatch)


def run(name: str) -> None:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_the_unequal_pair_is_a_27b_encoder_with_a_2b_decoder() -> None:
    parameters = pairform.inspect(EXAMPLES / "unequal_pair.json").parameters
    encoder = pairform.inspect("gemma-2-27b").parameters
    decoder = pairform.inspect("t5gemma-2b-2b").parameters
    assert parameters["encoder"] == encoder["decoder"]
    assert parameters["cross_attention"] == CROSS_27B_2B
    assert parameters["decoder"] == decoder["decoder"] - decoder["cross_attention"] + CROSS_27B_2B


def test_the_unequal_pair_differs_from_t5gemma_only_in_its_encoders_size() -> None:
    found = pairform.diff(pairform.load_spec("t5gemma-9b-2b"), pairform.load_spec(EXAMPLES / "unequal_pair.json"))
    assert {path.rpartition(".")[2] for path in found} == {"width", "depth", "heads", "kv_heads", "head_dim", "scale", "hidden"}
    assert all(path.startswith("encoder.") for path in found)


def test_swap_block(capsys: pytest.CaptureFixture[str]) -> None:
    run("swap_block.py")
    diff, gated, mlp = capsys.readouterr().out.splitlines()
    assert diff == "decoder.layer.branches.feed_forward.name: gated -> mlp"
    saved = [int(line.split()[0].replace(",", "")) for line in (gated, mlp)]
    assert saved[0] - saved[1] == 2 * 512 * 1024


def test_own_block(capsys: pytest.CaptureFixture[str]) -> None:
    run("own_block.py")
    norms, first, logits = capsys.readouterr().out.splitlines()
    assert "maxnorm" in norms
    assert first == "the first one: MaxNorm()"
    assert logits == "logits: (1, 2, 1024)"


def test_the_demo_converts_checks_and_writes_without_warnings_of_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, said = made_demo(tmp_path_factory)
    assert [warned for _, warned in said] == ["", ""]
    assert all(out.startswith(str(folder)) for out, _ in said)
    converted, _ = said[1]  # of "convert.py"; the first is "checkpoints.py"
    assert "verified: True" in converted
    assert len(converted.partition("writes:")[2].split()) == 8


def test_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    """Trained for 220 steps instead of 400, after which it names 83 %."""
    main = runpy.run_path(str(EXAMPLES / "pictures.py"))["main"]
    main.__globals__["STEPS"] = 220
    main()
    before, after, *answers = capsys.readouterr().out.splitlines()
    named = [int(line.split("%")[0].rpartition(" ")[2]) for line in (before, after)]
    assert named[0] < 30
    assert named[1] > 70
    assert len(answers) == 3


def test_t5gemma2_table1(capsys: pytest.CaptureFixture[str]) -> None:
    run("t5gemma2_table1.py")
    *_, half, sixth = capsys.readouterr().out.splitlines()
    assert half.split()[6:8] == ["4233M", "4233M"]
    assert sixth.endswith("127M fewer than printed")


@pytest.mark.parametrize("file", SPECS, ids=lambda file: file.name)
def test_documents_follow_the_schema_that_they_name(file: Path) -> None:
    document = json.loads(file.read_text())
    schema = json.loads((file.parent / document["$schema"]).read_text())
    jsonschema.validate(document, schema)
    pairform.load_spec(file)


def test_every_example_is_tested() -> None:
    tests = Path(__file__).read_text()
    assert [file.name for file in EXAMPLES.glob("*.py") if f'"{file.name}"' not in tests] == []
