"""Settings: the frozen model and the loader that makes one."""
