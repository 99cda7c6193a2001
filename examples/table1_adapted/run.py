"""Table 1 of T5Gemma 2 from adapted weights: its variants, converted from one language model and adapted with 12 seeds.

A Gemma 2-like language model is trained on the sources of Python's standard library. A pair converted from it, and variants of
that pair, are adapted on this project's own text. Run it from the repository's root:

    python -m examples.table1_adapted.run --out table1_adapted [--jobs 2] [--quick]

After an interruption, the same command continues.
"""

from pathlib import Path

from examples.initialisation.run import from_command_line, run_studies

HERE = Path(__file__).parent
QUICK = ("training.steps=8", "seeds=[0]", "data.validation=8")
"""Settings that show that this program works. The results mean nothing."""


def main() -> None:
    from_command_line(
        __doc__, lambda out, jobs, quick: run_studies(out, HERE, ["adapted"], ["large"], jobs, QUICK if quick else ())
    )


if __name__ == "__main__":
    main()
