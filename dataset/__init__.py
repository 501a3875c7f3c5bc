"""What lies on disk: a data folder becomes a checked table, a cache of decoded pixels, and splits."""
