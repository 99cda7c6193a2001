"""Run the cases of a benchmark: write the checkpoint once, time the settings in turn, measure memory in separate processes."""

import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.compare import (
    REFERENCE,
    Difference,
    Judge,
    Make,
    Timed,
    best_of_transformers,
    forget_peak_of_gpu,
    ratios,
    relative,
    take_turns,
    timed,
)
from benchmarks.measure import peers, run, save
from benchmarks.options import Options, parse

Case = dict[str, Any]
"""Plain data: lengths, batch and dtype; `runs`; and `apart` for a case that takes minutes: every setting then runs once per
turn in a separate process, which measures time and memory together. With `whole`, memory includes what the setting loads.
`tolerance`: of deep models, whose layers add up roundings."""
ON_A_GPU = 3
"""Timed calls of a setting in a separate process."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest allowed difference of an output, relative to its largest value."""


@dataclass(frozen=True)
class Benchmark:
    """The parts that differ between benchmarks.

    module:     name of the module, used to start separate processes.
    on_a_gpu:   the cases with `--device cuda`; by default the same.
    write:      writes the checkpoint of a case into a folder. Cases with the same `folder` share it.
    settings:   by name, functions that make each setting's callable from a folder and a case.
    name, what: file name and description of the result.
    difference: computes how far an output is from the reference's, for a folder and a case.
    more:       additional fields of the result, computed from the fields so far.
    others:     settings that compute something else: they are timed, but their output is not compared.
    steps:      how many steps one call of a setting makes; seconds are those of one step.
    """

    module: str
    cases: Sequence[Case]
    quick: Sequence[Case]
    write: Callable[[Path, Case, Options], None]
    settings: Callable[[Path, Case, Options], Mapping[str, Make]]
    name: Callable[[Case], str]
    what: Callable[[Case], str]
    difference: Callable[[Path, Case, Options], Difference] = lambda *_: relative
    more: Callable[[Case, Options, Mapping[str, Any]], dict[str, Any]] = lambda *_: {}
    on_a_gpu: Sequence[Case] = ()
    memory: bool = True
    others: frozenset[str] = frozenset()
    steps: Callable[[Options], int] = lambda options: 1

    def run(self, description: str | None, arguments: list[str] | None = None) -> None:
        options = parse(description, arguments)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        if options.alone is not None:
            assert options.case is not None
            assert options.folder is not None
            make = self.settings(options.folder, options.case, options)[options.alone]
            found = alone(make, options, whole=options.case.get("whole", False), steps=self.steps(options))
            print(json.dumps(found))
            return
        cases = self.quick if options.quick else (options.device != "cpu" and self.on_a_gpu) or self.cases
        with tempfile.TemporaryDirectory() as place:
            for case in cases:
                if options.only and self.name(case) not in options.only:
                    continue
                folder = (options.checkpoints or Path(place)) / str(case.get("folder", "model"))
                if not folder.exists():
                    self.write(folder, case, options)
                self.run_case(folder, case, options)

    def run_case(self, folder: Path, case: Case, options: Options) -> None:
        print(self.name(case), flush=True)
        begin = time.perf_counter()
        settings = self.settings(folder, case, options)
        runs = options.runs or (1 if options.quick else int(case.get("runs", 3)))
        judge = Judge(self.difference(folder, case, options), case.get("tolerance", TOLERANCE[case["dtype"]]), self.others)
        if case.get("apart"):
            found = self.take_turns_apart(settings, runs, folder, case, options, judge)
        else:
            found = take_turns(settings, runs, judge)
            in_processes = self.memory and not options.quick and options.device == "cpu"
            for name in measured_alone(found) if in_processes else ():
                found[name].peak_bytes = self.process(name, folder, case, options)["peak_bytes"]
        result: dict[str, Any] = {
            "machine": peers(options.threads),
            "what": self.what(case),
            "case": {key: value for key, value in case.items() if key not in ("folder", "runs", "tolerance")},
            "settings": {name: timed.document() for name, timed in found.items()},
            **ratios({name: timed for name, timed in found.items() if name not in self.others}),
        }
        save(self.name(case), result | self.more(case, options, result), options.results, options.device)
        print(f"  took {time.perf_counter() - begin:.0f} s", flush=True)

    def take_turns_apart(
        self,
        settings: Mapping[str, Make],
        runs: int,
        folder: Path,
        case: Case,
        options: Options,
        judge: Judge,
    ) -> dict[str, Timed]:
        found, answers = {name: Timed() for name in settings}, {}
        for _ in range(runs):
            for name in [name for name in settings if found[name].refused is None]:
                told = self.process(name, folder, case, options)
                if "refused" in told:
                    found[name].refused = told["refused"]
                    continue
                found[name].seconds.append(told["seconds"])
                found[name].peak_bytes = max(told["peak_bytes"], found[name].peak_bytes or 0)
                answers[name] = torch.load(told["answer"])
                print(f"  {name}: {told['seconds']:.4g} s, {told['peak_bytes'] / 1e6:.0f} MB", flush=True)
        judge(found, answers)
        return found

    def process(self, name: str, folder: Path, case: Case, options: Options) -> dict[str, Any]:
        """Measure one setting in a process that runs nothing else."""
        command = [sys.executable, "-m", self.module, "--alone", name, "--folder", str(folder), "--case", json.dumps(case)]
        command += ["--threads", str(options.threads), "--device", options.device] + ["--quick"] * options.quick
        told: dict[str, Any] = json.loads(run(command).printed.strip().splitlines()[-1])
        return told


def measured_alone(found: Mapping[str, Timed]) -> list[str]:
    """Names of the settings whose memory is reported: ours, and transformers' default and best."""
    wanted = {REFERENCE, best_of_transformers(found)}
    return [name for name, timed in found.items() if timed.refused is None and (name.startswith("pairform") or name in wanted)]


def alone(make: Make, options: Options, whole: bool = False, steps: int = 1) -> dict[str, Any]:
    """Measure the time of one call and its peak memory beyond what was in use before it; `whole`: before the setting was made.

    A warm-up call compiles and reads the weights into memory. On a GPU, where a call takes milliseconds, the time is the median
    of several.
    """
    assert options.alone is not None
    assert options.folder is not None
    try:
        empty = forget_peak(options.device)
        call = make()
        call()
        gc.collect()
        ready = forget_peak(options.device)
        calls = [timed(call) for _ in range(1 if options.device == "cpu" else ON_A_GPU)]
        seconds, answer = statistics.median(seconds for seconds, _ in calls) / steps, calls[0][1]
        peak = peak_bytes(options.device) - (empty if whole else ready)
    except Exception as error:
        if options.alone in ("pairform", "transformers"):
            raise
        return {"refused": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"}
    path = options.folder.parent / f"answer-{options.alone}.pt"
    torch.save(answer.detach().cpu(), path)
    return {"seconds": seconds, "peak_bytes": peak, "answer": str(path)}


def forget_peak(device: str) -> int:
    """Reset the peak and return the bytes in use. Freed memory goes back to the system first, so that it hides no new use."""
    if (allocated := forget_peak_of_gpu()) is not None:
        return allocated
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak_bytes(device: str) -> int:
    return resident("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated()


def resident(field: str) -> int:
    """A size in this process's status, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
