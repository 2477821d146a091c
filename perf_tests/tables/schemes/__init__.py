"""Quantization schemes: what a row holds (`spec`), and the rows."""
