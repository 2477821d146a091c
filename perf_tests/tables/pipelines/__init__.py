"""Pipelines: what a row holds (`spec`), the rows of each family in a module, and all of them (`rows`)."""
