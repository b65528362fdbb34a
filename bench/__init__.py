"""Programs that measure Meterscope against limits, in the same run on the same machine, and print ratios."""
