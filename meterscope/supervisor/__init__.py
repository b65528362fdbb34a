"""What `meterscope up` is made of: a data folder, reserved ports, child processes, and what they answer."""
