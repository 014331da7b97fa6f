"""Run the command line of the broker as `python -m pdp.broker.cli`."""

from pdp.broker.cli import main

main()
