"""Verdicts -> words. No decisions: a report prints what was judged elsewhere."""
