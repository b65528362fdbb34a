"""`meterscope demo`: a month of real web traffic, from the access log to paid invoices, checked against the input."""
