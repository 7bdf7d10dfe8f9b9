"""The mathematics of weighted hypergraphs: numpy, scipy and numba; no torch, and files only in ``io``."""
