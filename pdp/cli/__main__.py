"""Run the command line as `python -m pdp.cli`."""

from pdp.cli import main

main()
