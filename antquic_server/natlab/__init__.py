"""A laboratory of NATs in network namespaces, and the matrix of peers that meet through them."""
