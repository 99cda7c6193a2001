"""Run every benchmark, each in a separate process, then regenerate the tables and plots from the results.

python -m benchmarks.all [--only forward decode ...] [other options, passed to each]
"""

import argparse
import importlib.util
import subprocess
import sys
import time

ORDER = (
    "rates",
    "start",
    "inspect",
    "load",
    "small",
    "sizes",
    "forward",
    "merged",
    "decode",
    "ctranslate2",
    "train",
    "adapt",
    "loop",
    "study",
    "convert",
    "latency",
)


ON_A_CPU = ("start", "inspect", "convert", "study", "ctranslate2")
"""Benchmarks that never use a GPU."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER, help="default: all")
    arguments, rest = parser.parse_known_args()
    failed = []
    names = [name for name in ORDER if name in arguments.only and importlib.util.find_spec(f"benchmarks.{name}")]
    for name in [name for name in names if "cuda" not in rest or name not in ON_A_CPU]:
        begin = time.perf_counter()
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *rest], check=False).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - begin:.0f} s", flush=True)
    pages = "plots" if importlib.util.find_spec("matplotlib") else "tables"
    subprocess.run([sys.executable, "-m", f"benchmarks.{pages}"], check=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
