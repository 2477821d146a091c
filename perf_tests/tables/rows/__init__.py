"""TABLE: rows of one subject each, of which `matrix` makes cases."""
