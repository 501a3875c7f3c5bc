"""A model and images -> numbers, tables and figures. Nothing here writes a file."""
