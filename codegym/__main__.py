"""Make `python -m codegym` the same as `codegym`."""

from codegym.cli import main

main()
