"""The per-core process, started as ``python -m workers``; nothing imports it."""
