"""`python -m pairform`."""

from pairform.cli import main

main()
