"""Compiled code that is kept otherwise than in the compile caches: in packages, or in a CUDA graph."""
