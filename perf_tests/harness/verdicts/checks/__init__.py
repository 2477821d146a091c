"""The checks of `build_checks` that have a subject of their own."""
