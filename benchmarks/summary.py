"""Tables of speed and memory with a row for each result: all of them for docs/benchmarks.md, a few for README.md."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.measure import apart

Results = Mapping[str, dict[str, Any]]


def summary(found: Results) -> str:
    """A Markdown table with a row for each result. If no result comes from a GPU, a row says so."""
    rows = ["| Measurement | Result | Command |", "|---|---|---|"]
    for row in ROWS:
        rows += [f"| {what} | {figure} | `python -m benchmarks.{script}` |" for what, figure, script in row(found)]
    if not any("gpu" in result["machine"] for result in found.values()):
        rows.append('| speed on a GPU | not measured | `make bench BENCH="--device cuda"` |')
    return "\n".join(rows)


def headline(found: Results) -> str:
    """The same table of one case of each kind of work."""
    return summary({name: found[name] for name in HEADLINE if name in found})


HEADLINE = (
    "convert-gemma-2-2b",
    "load-bfloat16",
    "forward-t5gemma-9b-2b-2048-2-bfloat16-nvidia-h100-80gb-hbm3",
    "forward-2048-2-bfloat16",
    "decode-512-1-bfloat16",
    "train-512-512-4-bfloat16",
    "study",
)
Row = Iterator[tuple[str, str, str]]


def convert(found: Results) -> Row:
    for name, result in found.items():
        if name.startswith("convert-"):
            written = f"{result['bytes_written'] / 1e9:.1f} GB written"
            what = f"{result['what'].split(',')[0]}, {written}, compared with `cp -r` of the result"
            yield (
                what,
                f"{result['median_ratio']:.2f} x the time, {result['convert']['peak_megabytes']} MB of memory",
                "convert",
            )


def inspect(found: Results) -> Row:
    for name, result in found.items():
        if name.startswith("inspect-"):
            of = f"`pairform inspect {name.removeprefix('inspect-')}`"
            torch = result["import_torch"]["median_seconds"]
            took = result["inspect"]
            yield (
                f"{of}, including {torch:.1f} s to import torch",
                f"{took['median_seconds']:.1f} s, {took['peak_megabytes']} MB",
                "inspect",
            )


def start(found: Results) -> Row:
    for name, result in found.items():
        if name == "start":
            yield "import pairform, in addition to torch", f"{result['import_beyond_torch_seconds']:.2f} s", "start"
            yield "`pairform presets`", f"{result['least_seconds']['presets']:.2f} s", "start"
            ratio = result["first_token_median_ratio"]
            yield "cold start to the first token of a small model", f"{ratio:.2f} x as fast as transformers", "start"


def loop(found: Results) -> Row:
    for name, result in found.items():
        if name.startswith("loop-"):
            what = f"training loop of adapt, {result['parameters'] / 1e6:.1f} million parameters"
            yield what, f"{result['overhead']:+.1%} time, compared with a loop by hand", "loop"


def study(found: Results) -> Row:
    for name, result in found.items():
        if name == "study":
            what = f"study of {result['trials']} trials of {result['parameters']:,} parameters, {result['steps']} steps"
            yield what, f"{result['ratio']:.2f} x the time of their bare loops", "study"


def translate(found: Results) -> Row:
    """Our compiled setting relative to CTranslate2, in float32 and in int8."""
    for name, result in found.items():
        if name.startswith("translate-"):
            case = result["case"]
            seconds = {key: each["median_seconds"] for key, each in result["settings"].items() if "refused" not in each}
            what = f"encoder and greedy decoding of {case['tokens']} tokens, T5Gemma B-B shapes without softcaps and windows"
            figures = [
                f"{seconds[f'ctranslate2{kind}'] / seconds[f'pairform{kind} compiled']:.2f} x {where}"
                for kind, where in (("", "as fast as CTranslate2 in float32"), (" int8", "in int8"))
                if {f"ctranslate2{kind}", f"pairform{kind} compiled"} <= seconds.keys()
            ]
            figure = f"compiled: {', '.join(figures)}" if figures else "no setting ran"
            yield f"{what}, source {case['source']}, batch {case['batch']}", figure, "ctranslate2"


def compared(kind: str, what: str, shapes: str = "T5Gemma B-B") -> Callable[[Results], Row]:
    """A row for each case: our fastest setting relative to transformers' default and best, and our lowest memory."""

    def rows(found: Results) -> Row:
        for name, result in found.items():
            if not name.startswith(f"{kind}-"):
                continue
            case = result["case"]
            words = [f"{key} {case[key]}" for key in ("source", "batch") if key in case] + [case["dtype"]]
            place, option = apart(result["machine"]), " --device cuda" if "gpu" in result["machine"] else ""
            on = f" ({place})" if place else ""
            of = [f"{case.get('preset', shapes)} shapes"] if shapes else []
            yield f"{', '.join([what, *of, *words])}{on}", figure(result), kind + option

    return rows


def figure(result: Mapping[str, Any]) -> str:
    name, speed = max(result["speedup"].items(), key=lambda item: item[1]["default"])
    words = [f"{speed['default']:.2f} x as fast as transformers' default"]
    if "best" in speed:
        best = result["best_of_transformers"]
        words.append("its best" if best == "transformers" else f"{speed['best']:.2f} x its best ({best.partition(' ')[2]})")
    if name != "pairform":
        words[0] = f"{name.partition(' ')[2]}: {words[0]}"
    memory = [ratio["default"] for ratio in result.get("memory_ratio", {}).values() if "default" in ratio]
    return ", ".join(words + ([f"{min(memory):.2f} x the memory"] if memory else []))


ROWS: tuple[Callable[[Results], Row], ...] = (
    convert,
    inspect,
    start,
    compared("load", "load a 1.2 GB folder", ""),
    compared("forward", "forward pass"),
    compared("merged", "forward pass of text", "T5Gemma 2 270M-270M"),
    compared("decode", "greedy decoding of 128 tokens"),
    translate,
    compared("train", "training step, vocabulary 256000"),
    compared("adapt", "step of adapt with AdamW, vocabulary 256000"),
    loop,
    study,
)
