"""Post-quantum primitives behind one interface, with a pool of reusable contexts."""
