"""Accepting what a run changes case by case, in a conversation."""
