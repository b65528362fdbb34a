"""The metrics sink: takes OTLP metrics of all processes and keeps the latest point of each series, in memory.

In memory is enough: processes send everything again within seconds, and what must be kept is kept by Prometheus.
"""
