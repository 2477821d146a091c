"""A run as one page to look at: what a reader sees is computed first, and written second."""
