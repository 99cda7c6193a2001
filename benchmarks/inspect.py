"""Inspecting the largest unequal preset from a cold process, against importing torch alone.

python -m benchmarks.inspect [--preset t5gemma-9b-2b] [--runs 5]
"""

import argparse
import statistics
import sys

from benchmarks.measure import run, save, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="t5gemma-9b-2b")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs, after one of each that is not counted")
    arguments = parser.parse_args()
    inspect = [sys.executable, "-m", "pairform", "inspect", arguments.preset, "--json"]
    runs = [(run(inspect), run([sys.executable, "-c", "import torch"])) for _ in range(arguments.runs + 1)][1:]
    inspects, imports = zip(*runs, strict=True)
    save(
        f"inspect-{arguments.preset}",
        {
            "what": f"pairform inspect {arguments.preset} --json, against `import torch`",
            "inspect": summary(inspects),
            "import_torch": summary(imports),
            "median_ratio": round(statistics.median(ours.seconds / theirs.seconds for ours, theirs in runs), 3),
        },
    )


if __name__ == "__main__":
    main()
