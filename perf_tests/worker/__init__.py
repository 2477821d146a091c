"""The only code that imports torch, diffusers, torchao and transformers: one build per process."""
