"""Worlds that are made: from a config to families, laws of weights, and edges in memory or computed as drawn."""
