"""Nights as a static site: a page each, and an index of them."""
