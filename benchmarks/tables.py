"""Write tables of the committed results into the marked regions of README.md and docs/benchmarks.md.

A region starts with `<!-- results: NAME -->` and ends with `<!-- end of results -->`. The text between them is generated here.

    python -m benchmarks.tables
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, apart, file_name
from benchmarks.summary import headline, summary

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
REGION = re.compile(r"(<!-- results: (?P<name>[a-z-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
Result = dict[str, Any]
Results = Mapping[str, Result]


def results(folder: Path = RESULTS) -> dict[str, Result]:
    """All results by name, sorted by sequence length and batch size."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: [int(word) if word.isdigit() else 0 for word in item[0].split("-")]))


def of_kind(found: Results, kind: str) -> dict[str, Result]:
    return {name: result for name, result in found.items() if name.partition("-")[0] == kind}


def device(result: Result) -> str:
    host = result["machine"]
    return host["gpu"] if "gpu" in host else ", ".join(filter(None, (host["cpu"], apart(host))))


def case(result: Result) -> str:
    """Description of a case."""
    given = result.get("case", {})
    words = [given["preset"]] if "preset" in given else []
    words += [f"{word} {given[key]}" for key, word in CASE_WORDS.items() if key in given]
    return ", ".join([*words, given["dtype"]] if "dtype" in given else words)


CASE_WORDS = {"source": "source", "target": "target", "tokens": "tokens", "vocabulary": "vocabulary", "batch": "batch"}


def compared(found: Results, kind: str) -> str:
    """A table of every setting of every case, relative to transformers' default."""
    rows = [
        "| case | setting | seconds | speed (default = 1) | peak memory | share of the limit |",
        "|---|---|---|---|---|---|",
    ]
    for result in of_kind(found, kind).values():
        of = ", ".join(filter(None, (case(result), apart(result["machine"]))))
        default = result["settings"]["transformers"]["median_seconds"]
        shares = result.get("share_of_bandwidth") or result.get("share_of_matrix_rate") or {}
        for name, setting in result["settings"].items():
            if "refused" in setting:
                rows.append(f"| {of} | {name} | | excluded: {escaped(setting['refused'])} | | |")
                continue
            speed = default / setting["median_seconds"]
            memory = f"{setting['peak_megabytes']} MB" if "peak_megabytes" in setting else ""
            seconds = f"{setting['median_seconds']:.3g}"
            rows.append(f"| {of} | {name} | {seconds} | {speed:.2f} | {memory} | {shares.get(name, '')} |")
    return "\n".join(rows) if len(rows) > 2 else "Not measured."


def page_part(found: Results, kind: str) -> str:
    """The plots and the table of one kind of benchmark."""
    drawn = [f"![{plot.title}](figures/{name}.svg)" for name, plot in figures(found, kind).items()]
    return "\n\n".join([*drawn, compared(found, kind)])


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def latency(found: Results) -> str:
    if not of_kind(found, "latency"):
        return "GPU: not measured."
    rows = ["| model | seconds | ratio | in the paper |", "|---|---|---|---|"]
    for result in of_kind(found, "latency").values():
        for name, setting in result["settings"].items():
            rows.append(f"| {name} | {setting['median_seconds']} | {setting['ratio']} | {setting['ratio_of_paper']} |")
    return "\n".join(rows)


def loop(found: Results) -> str:
    rows = ["| parameters | by hand, seconds a step | adapt | overhead |", "|---|---|---|---|"]
    for result in of_kind(found, "loop").values():
        hand, ours = (result["settings"][name]["median_seconds"] for name in ("by hand", "adapt"))
        rows.append(f"| {result['parameters']:,} | {hand} | {ours} | {result['overhead']:.1%} |")
    return "\n".join(rows) if len(rows) > 2 else "Not measured."


def study(found: Results) -> str:
    rows = ["| trials | parameters | steps | bare loops, seconds | study, seconds | ratio |", "|---|---|---|---|---|---|"]
    for result in of_kind(found, "study").values():
        bare, ours = (result["settings"][name]["median_seconds"] for name in ("bare loops", "study"))
        sizes = f"{result['trials']} | {result['parameters']:,} | {result['steps']}"
        rows.append(f"| {sizes} | {bare} | {ours} | {result['ratio']} |")
    return "\n".join(rows) if len(rows) > 2 else "Not measured."


def small(found: Results) -> str:
    """Milliseconds of a call of each work and setting, and its speed relative to transformers' default."""
    rows = ["| | setting | ms | speed (default = 1) |", "|---|---|---|---|"]
    for result in of_kind(found, "small").values():
        default = result["settings"]["transformers"]["median_seconds"]
        for name, setting in result["settings"].items():
            seconds, case = setting["median_seconds"], result["case"]
            rows.append(f"| {case['work']} | {name} | {1000 * seconds / case['times']:.3g} | {default / seconds:.2f} |")
    return "\n".join(rows) if len(rows) > 2 else "Not measured."


def sizes(found: Results) -> str:
    """Speed relative to transformers' default, by width and length, with a column for each work and dtype."""
    cells = {
        tuple(result["case"][key] for key in ("width", "source", "work", "dtype")): result["speedup"]["pairform"]["default"]
        for result in of_kind(found, "sizes").values()
    }
    if not cells:
        return "Not measured."
    columns = sorted({cell[2:] for cell in cells})
    rows = [
        "| width | length | " + " | ".join(f"{work}, {dtype}" for work, dtype in columns) + " |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for width, length in sorted({cell[:2] for cell in cells}):
        speeds = [cells.get((width, length, *column)) for column in columns]
        shown = ("" if speed is None else f"{speed:.2f}" for speed in speeds)
        rows.append(f"| {width} | {length} | {' | '.join(shown)} |")
    return "\n".join(rows)


def machines(found: Results) -> str:
    """The machines of the results, whether a GPU is among them, and a warning if instruction sets differ."""
    cpus = {cpu(host) for host in hosts(found) if "gpu" not in host}
    gpus = {f"{m['gpu']}, torch {m['torch']}" for m in hosts(found) if "gpu" in m}
    lines = [f"- CPU: {name}" for name in sorted(cpus)] + [f"- GPU: {name}" for name in sorted(gpus)]
    if not gpus:
        lines.append("- GPU: not measured")
    sets = {host.get("instructions", UNKNOWN) for host in hosts(found) if "gpu" not in host}
    if len(sets) > 1:
        lines += [f"- With {known}: {', '.join(of_set(found, known))}" for known in sorted(sets)]
        lines.append("- Results with different instruction sets are not comparable with each other.")
    return "\n".join(lines)


UNKNOWN = "instruction set not recorded"


def cpu(host: Mapping[str, Any]) -> str:
    known = host.get("instructions", UNKNOWN)
    return f"{host['cpu']} ({known}), {host['cores']} cores, Python {host['python']}, torch {host['torch']}"


def of_set(found: Results, instructions: str) -> list[str]:
    """The names of the results from a CPU with this instruction set; of a kind whose results are all from it, only the kind."""
    sets = {name: result["machine"].get("instructions", UNKNOWN) for name, result in found.items()}
    cpus = [name for name, result in found.items() if "gpu" not in result["machine"]]
    others = {name.partition("-")[0] for name in cpus if sets[name] != instructions}
    kinds = {name: name.partition("-")[0] for name in cpus if sets[name] == instructions}
    return sorted({name if kind in others else kind for name, kind in kinds.items()})


def hosts(found: Results) -> list[dict[str, Any]]:
    return [result["machine"] for result in found.values()]


KINDS = {
    "forward": "Forward of encoder and decoder",
    "merged": "Forward of T5Gemma 2 shapes, text",
    "decode": "Greedy decoding of 128 tokens",
    "translate": "Encoder and greedy decoding of 48 tokens",
    "train": "Training step, vocabulary 256000",
    "adapt": "Step of adapt, vocabulary 256000",
    "load": "Loading a folder of 1.2 GB",
}


@dataclass(frozen=True)
class Plot:
    """Values by case and setting, relative to transformers' default."""

    title: str
    axis: str
    cases: Mapping[str, Mapping[str, float]]


def figures(found: Results, kind: str) -> dict[str, Plot]:
    """The plots of one kind of benchmark by file name: speed, and memory if measured, for CPUs, for fewer instruction sets of
    them, and for each GPU."""
    plots: dict[str, Plot] = {}
    for place in dict.fromkeys(apart(result["machine"]) for result in of_kind(found, kind).values()):
        here = [result for result in of_kind(found, kind).values() if apart(result["machine"]) == place]
        devices = " and ".join(dict.fromkeys(map(device, here)))
        for what, (values, axis) in MEASURES.items():
            if cases := {case(result): measured for result in here if (measured := values(result))}:
                plots[file_name(f"{kind}-{what}", here[0]["machine"])] = Plot(f"{KINDS[kind]}: {what} ({devices})", axis, cases)
    return plots


def speeds(result: Result) -> dict[str, float]:
    default = result["settings"]["transformers"]["median_seconds"]
    ran = {name: setting for name, setting in result["settings"].items() if "refused" not in setting}
    return {name: default / setting["median_seconds"] for name, setting in ran.items()}


def memories(result: Result) -> dict[str, float]:
    default = result["settings"]["transformers"].get("peak_megabytes")
    measured = {name: setting["peak_megabytes"] for name, setting in result["settings"].items() if "peak_megabytes" in setting}
    return {name: peak / default for name, peak in measured.items()} if default else {}


MEASURES: Mapping[str, tuple[Callable[[Result], dict[str, float]], str]] = {
    "speed": (speeds, "speed, transformers' default = 1 (more is better)"),
    "memory": (memories, "peak memory, transformers' default = 1 (less is better)"),
}
REGIONS: Mapping[str, Callable[[Results], str]] = {
    **{kind: partial(page_part, kind=kind) for kind in KINDS},
    "latency": latency,
    "loop": loop,
    "study": study,
    "small": small,
    "sizes": sizes,
    "machines": machines,
    "summary": summary,
    "headline": headline,
}


def filled(page: str, found: Results) -> str:
    """A page with its regions regenerated from the results."""
    return REGION.sub(lambda match: f"{match[1]}{REGIONS[match['name']](found)}\n{match[3]}", page)


def main() -> None:
    found = results()
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main()
