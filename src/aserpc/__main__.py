"""``python -m aserpc``: the command line."""

from aserpc.cli import main

main()
