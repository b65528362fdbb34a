"""Pure rules of billing: no database, no network, no clock. `now` is an argument."""
