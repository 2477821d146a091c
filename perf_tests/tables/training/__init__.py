"""Training: what a recipe says of it (`spec`), and the recipes that train."""
