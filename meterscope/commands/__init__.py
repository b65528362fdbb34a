"""The subcommands of `meterscope`, one module each."""
