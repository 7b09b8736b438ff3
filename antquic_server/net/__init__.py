"""UDP sockets: slots, steering, offloads."""
