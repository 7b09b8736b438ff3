"""Profiles of running workers, taken from outside and without restarting anything."""
