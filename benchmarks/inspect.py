"""Inspect the largest preset of unequal sizes in a new process, compared with `import torch` alone.

python -m benchmarks.inspect [--preset t5gemma-9b-2b] [--runs 5] [--quick]
"""

import argparse
import statistics
import sys

from benchmarks.measure import RESULTS, run, save, summary


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="t5gemma-9b-2b")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs, after a warm-up pair")
    parser.add_argument("--quick", action="store_true", help="run once, to check that it works; saves no result")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="nothing runs on a device")
    arguments = parser.parse_args(words)
    turns = 1 if arguments.quick else arguments.runs + 1
    inspect = [sys.executable, "-m", "pairform", "inspect", arguments.preset, "--json"]
    runs = [(run(inspect), run([sys.executable, "-c", "import torch"])) for _ in range(turns)][-arguments.runs :]
    inspects, imports = zip(*runs, strict=True)
    save(
        f"inspect-{arguments.preset}",
        {
            "what": f"pairform inspect {arguments.preset} --json, against `import torch`",
            "inspect": summary(inspects),
            "import_torch": summary(imports),
            "median_ratio": round(statistics.median(ours.seconds / theirs.seconds for ours, theirs in runs), 3),
        },
        None if arguments.quick else RESULTS,
    )


if __name__ == "__main__":
    main()
