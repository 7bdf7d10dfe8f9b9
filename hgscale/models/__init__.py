"""Neural networks: a set encoder for hyperedges, and any masked language model of transformers, behind one face."""
