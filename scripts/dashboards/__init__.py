"""Grafana's dashboards, made with Grafana's own builders. `python -m scripts.dashboards` writes them (`make dashboards`)."""
