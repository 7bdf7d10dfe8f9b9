"""Worlds on disk: Parquet shards with tables to draw from, written by any number of workers, and mapped."""
