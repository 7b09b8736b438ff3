"""Protocol engine: no IO, no clock and no randomness of its own."""
