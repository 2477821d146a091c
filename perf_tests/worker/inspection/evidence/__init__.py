"""What is recorded of a red case once everything is timed."""
