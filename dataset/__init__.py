"""Data on disk: turn a data folder into a checked table, a cache of decoded pixels, and splits."""
