"""What is measured: frozen rows. Nothing runs here and nothing imports torch."""
