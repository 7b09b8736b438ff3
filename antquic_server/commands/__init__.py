"""The commands of ``antquic-server``, one module each."""
