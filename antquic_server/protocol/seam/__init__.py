"""The only package that may name aioquic's private attributes."""
