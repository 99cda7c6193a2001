"""Every benchmark runs, tells right answers from wrong ones, and the pages say what the committed results say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from benchmarks import (
    adapt,
    convert,
    ctranslate2,
    decode,
    forward,
    inspect,
    latency,
    load,
    loop,
    measure,
    merged,
    rates,
    sizes,
    small,
    start,
    study,
    summary,
    tables,
    train,
)
from benchmarks.compare import Call, Judge, Timed, ratios, relative, take_turns


@pytest.fixture(autouse=True)
def nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A quick run writes no result; and torch gets its threads back."""
    before = {path: path.read_bytes() for path in measure.RESULTS.iterdir()}
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    assert {path: path.read_bytes() for path in measure.RESULTS.iterdir()} == before


@pytest.mark.parametrize(
    "module",
    [forward, merged, decode, ctranslate2, train, load, adapt, small, sizes],
    ids=lambda module: module.__name__,
)
def test_a_comparison_runs(module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    module.BENCHMARK.run(None, ["--quick"])
    printed = capsys.readouterr().out
    assert '"speedup"' in printed
    assert '"pairform"' in printed


@pytest.mark.parametrize(
    "main", [convert.main, inspect.main, latency.main, loop.main, start.main, study.main], ids=lambda main: main.__module__
)
def test_a_script_runs(main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick"])
    assert '"machine"' in capsys.readouterr().out


def test_latency_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    latency.main([])
    assert "needs a GPU" in capsys.readouterr().out


def test_memory_of_the_whole_includes_what_a_setting_loads(tmp_path: Path) -> None:
    from benchmarks.cases import alone
    from benchmarks.options import parse

    options = parse(None, ["--quick", "--alone", "pairform", "--folder", str(tmp_path / "model")])

    def make() -> Call:
        loaded = torch.ones(1 << 24)
        return lambda: loaded.sum()[None]

    assert alone(make, options)["peak_bytes"] < 1 << 25 < alone(make, options, whole=True)["peak_bytes"]


def test_rates_are_positive() -> None:
    from benchmarks.options import parse

    assert all(value > 0 for value in rates.rates(parse(None, ["--quick"])).values())


def answers(value: float) -> Callable[[], Call]:
    return lambda: lambda: torch.tensor([1.0, value])


def fails() -> Call:
    raise RuntimeError("cannot\nbe done")


def test_a_peer_that_fails_or_is_wrong_is_no_peer() -> None:
    settings = {
        "pairform": answers(1.0),
        "transformers": answers(1.0),
        "transformers fast": answers(0.5),
        "transformers broken": fails,
    }
    found = take_turns(settings, 2, Judge(relative, 0.1))
    assert found["transformers fast"].refused == "its answer differs by 0.5"
    assert found["transformers broken"].refused == "RuntimeError: cannot"
    assert ratios(found)["best_of_transformers"] == "transformers"


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_wrong_answer_of_ours_ends_it(value: float) -> None:
    with pytest.raises(SystemExit, match="pairform fast differs"):
        take_turns({"pairform fast": answers(value), "transformers": answers(1.0)}, 1, Judge(relative, 0.1))


def test_ratios_are_of_medians() -> None:
    found = {
        "pairform": Timed([1.0, 9.0, 2.0], peak_bytes=10),
        "transformers": Timed([8.0], peak_bytes=40),
        "transformers flex": Timed([5.0], peak_bytes=20),
    }
    assert ratios(found) == {
        "best_of_transformers": "transformers flex",
        "speedup": {"pairform": {"default": 4.0, "best": 2.5}},
        "memory_ratio": {"pairform": {"default": 0.25, "best": 0.5}},
    }


def test_a_result_records_the_instruction_set_and_tables_tell_results_of_different_ones_apart() -> None:
    host = measure.machine()
    assert host["instructions"].startswith(torch.backends.cpu.get_cpu_capability())
    found: dict[str, Any] = {name: {"machine": host} for name in ("load", "train")}
    assert tables.machines(found).startswith(f"- CPU: {host['cpu']} ({host['instructions']}), ")
    assert "not comparable" not in tables.machines(found)
    found |= {"decode": {"machine": host | {"instructions": "AVX512, amx_bf16"}}}
    said = tables.machines(found)
    assert "- With AVX512, amx_bf16: decode\n" in said
    assert "not comparable" in said


def test_results_with_fewer_instruction_sets_stand_beside_those_of_the_whole_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = {name: {"median_seconds": seconds} for name, seconds in (("pairform", 1.0), ("transformers", 2.0))}
    case = {"source": 512, "batch": 2, "dtype": "bfloat16"}
    speedup = {"pairform": {"default": 2.0, "best": 2.0}}
    result = {"case": case, "settings": timed, "best_of_transformers": "transformers", "speedup": speedup}
    for limit in (None, "AVX2"):
        for name, value in (("ATEN_CPU_CAPABILITY", limit and limit.lower()), ("ONEDNN_MAX_CPU_ISA", limit)):
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        measure.save("forward-512", dict(result), tmp_path)
    found = tables.results(tmp_path)
    assert set(found) == {"forward-512", "forward-512-limited-to-avx2"}
    assert set(tables.figures(found, "forward")) == {"forward-speed", "forward-speed-limited-to-avx2"}
    assert "| source 512, batch 2, bfloat16, limited to AVX2 | pairform | 1 | 2.00 |" in tables.compared(found, "forward")
    assert "batch 2, bfloat16 (limited to AVX2) | 2.00 x as fast" in summary.summary(found)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_a_page_says_what_the_results_say(page: Path) -> None:
    assert page.read_text("utf-8") == tables.filled(page.read_text("utf-8"), tables.results()), (
        "run python -m benchmarks.tables"
    )


def test_the_folder_holds_the_plots_of_the_page() -> None:
    found = tables.results()
    drawn = {f"{name}.svg" for kind in tables.KINDS for name in tables.figures(found, kind)}
    assert {path.name for path in (tables.PAGES[1].parent / "figures").glob("*.svg")} == drawn, "run python -m benchmarks.plots"
