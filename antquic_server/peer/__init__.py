"""The peer library: reach other peers, through NATs, with the help of a node."""
