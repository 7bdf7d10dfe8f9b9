"""Recovery: read a hypergraph out of conditionals, and compare it with the truth and with what counting achieves."""
