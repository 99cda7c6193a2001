"""presets, blocks, show, diff, schema, inspect."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import pairform
from tests.command_line.runner import CommandLine, document


def test_presets_lists_them_all(run: CommandLine) -> None:
    found = document(run("presets", "--json"))
    assert list(found) == pairform.presets()
    assert found["t5gemma-9b-2b"] == {
        "parameters": 12_292_375_296,
        "encoder": {"depth": 42, "width": 3584},
        "decoder": {"depth": 26, "width": 2304},
    }
    lines = [line.split("  ") for line in run("presets").out.splitlines()]
    assert [name for name, *_ in lines[1 : len(found) + 1]] == pairform.presets()
    assert ["t5gemma-9b-2b", "12,292,375,296", "42 x 3584", "26 x 2304"] in [
        [*filter(None, map(str.strip, line))] for line in lines
    ]


def test_blocks_lists_kinds_names_and_fields(run: CommandLine) -> None:
    found = document(run("blocks", "--json"))
    assert {kind: list(rows) for kind, rows in found.items()} == {
        kind: list(names) for kind, names in pairform.blocks().items()
    }
    assert found["feed_forward"]["gated"]["fields"] == ["hidden", "activation", "bias", "dropout", "wide_output"]
    assert document(run("blocks", "norm", "--json")) == {"norm": found["norm"]}
    text = run("blocks", "norm").out
    assert "rmsnorm" in text
    assert "gated" not in text


def test_show_prints_the_expanded_form(run: CommandLine) -> None:
    assert document(run("show", "t5gemma-9b-2b", "--json")) == pairform.load_spec("t5gemma-9b-2b").document()
    changed = document(run("show", "t5gemma-2b-2b", "--set", "decoder.depth=4", "--set", "tokens.start=0", "--json"))
    assert (changed["decoder"]["depth"], changed["tokens"]["start"]) == (4, 0)


def test_show_prints_a_tree(run: CommandLine) -> None:
    text = run("show", "t5gemma-9b-2b").out
    assert "encoder  width 3584, 42 layers" in text
    assert "layers 0, 2, …, 24" in text
    assert "mask window [4095, 4095]" in " ".join(text.replace("│", "").split())


def test_show_prints_pictures_a_bridge_and_a_shared_embedding(run: CommandLine) -> None:
    text = run("show", "t5gemma2-4b-1b").out
    shown = [line.strip("│├└─ ") for line in text.splitlines()]
    wanted = ("vision  image token 256001, frozen", "tower  width 1152, 27 layers", "bridge  linear")
    assert all(line in shown for line in wanted)
    assert any(line.startswith("layers 0-4, 6-10, …, 30-33") for line in shown)
    assert "embedding  the encoder's" not in text
    assert "embedding  the encoder's" in run("show", "t5gemma2-1b-1b").out


def test_diff_names_each_path_with_both_values(run: CommandLine) -> None:
    found = document(run("diff", "t5gemma-2b-2b", "t5gemma-9b-2b", "--json"))
    assert found["encoder.depth"] == {"old": 26, "new": 42}
    text = run("diff", "t5gemma-2b-2b", "t5gemma-9b-2b").out
    assert all(path in text for path in found)
    assert run("diff", "t5gemma-2b-2b", "t5gemma-2b-2b").out == "no difference\n"


def test_schema_is_a_schema_that_takes_the_presets(run: CommandLine, tmp_path: Path) -> None:
    schema = document(run("schema"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(pairform.load_spec("t5gemma-2b-2b").document())
    assert run("schema", "--out", tmp_path / "schema.json").out == ""
    assert json.loads((tmp_path / "schema.json").read_text()) == schema


def test_a_schema_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("the old one")
    limited = f"ulimit -f 8; {sys.executable} -m pairform schema --out schema.json"
    ran = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran
    assert ran.stderr.startswith("error: ")
    assert "partial" not in ran.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"schema.json": "the old one"}


def test_inspect_counts_parameters_flops_and_cache(run: CommandLine) -> None:
    found = document(run("inspect", "t5gemma-s-s", "--json"))
    assert found["parameters"]["total"] == 312_517_632
    lengths = ["--batch", 2, "--source-length", 64, "--target-length", 16, "--dtype", "float32"]
    other = document(run("inspect", "t5gemma-s-s", *lengths, "--json"))
    assert [other[field] for field in ("batch", "source_length", "target_length", "dtype")] == [2, 64, 16, "float32"]
    assert other["cache_bytes"]["source"] == found["cache_bytes"]["source"] * 2 * 2 * 64 // 512
    assert other["flops"]["total"] < found["flops"]["total"]
    seeing = document(run("inspect", "t5gemma2-270m-270m", "--pictures", 1, "--json"))
    assert (seeing["pictures"], seeing["parameters"]["vision"]) == (1, 417_604_464)
    assert "pictures 1" in run("inspect", "t5gemma2-270m-270m", "--pictures", 1).out
    text = run("inspect", "t5gemma-s-s", "--set", "decoder.depth=4").out
    assert "layers x 4" in text
    assert "parameters: total" in text


@pytest.mark.parametrize("name", pairform.presets())
def test_a_preset_is_shown_from_its_committed_form_as_from_its_spec(
    run: CommandLine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = Path("copy.json")  # a short name: long ones are broken over lines
    copy.write_text(json.dumps({"extends": name}))
    for words in (("show",), ("show", "--json"), ("diff", "t5gemma-s-s")):
        read, validated = (run(*words, ref).out.replace(str(ref), "SPEC") for ref in (name, copy))
        assert read.split() == validated.split()


def test_presets_are_shown_without_torch() -> None:
    script = (
        "import sys\n"
        "from pairform.cli.main import main\n"
        "for words in (['show', 't5gemma2-4b-1b'], ['show', 't5-small', '--json'], ['diff', 'gemma-2-2b', 'gemma-2-9b']):\n"
        "    sys.argv = ['pairform', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "encoder  width 2560, 34 layers" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "False"
