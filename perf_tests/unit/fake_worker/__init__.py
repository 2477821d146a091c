"""A worker without torch: the real command line and protocol, and numbers that depend on the case alone."""
