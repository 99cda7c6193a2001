"""Many inputs by a seed of one's own: `python -m tests.fuzz --seed 7 --count 2000 --only forward`."""

import argparse
import sys
import time

from tests.fuzz.inputs import KINDS
from tests.fuzz.run import faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="which inputs; by default the time chooses")
    parser.add_argument("--count", type=int, default=500, help="inputs over all kinds")
    parser.add_argument("--only", choices=list(KINDS), help="inputs of one kind")
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    kinds = [options.only] if options.only else list(KINDS)
    found = 0
    for number in range(options.count):
        kind = kinds[number % len(kinds)]
        for line in faults(kind, seed, number // len(kinds)):
            found += 1
            print(line)
    print(f"seed {seed}: {options.count} inputs, {found} answered wrongly")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
