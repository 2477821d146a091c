"""Metrics: what a row holds (`spec`), the ranges that the tables imply (`expected`), and the rows."""
