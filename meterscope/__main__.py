"""`python -m meterscope` is the `meterscope` command."""

from meterscope.cli import main

main()
