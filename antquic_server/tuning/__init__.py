"""Kernel settings that matter to a node: what they should be, what they are, changing them and changing them back."""
