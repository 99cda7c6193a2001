"""`python -m pairform`."""

from pairform.cli.main import main

main()
