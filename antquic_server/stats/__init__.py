"""Counters of a worker, their sum over workers, their Prometheus form."""
