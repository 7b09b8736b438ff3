"""Examines the machine a node runs on, or is to run on: what keeps it from working, or from full speed."""
