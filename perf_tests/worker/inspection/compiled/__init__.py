"""Whether compiled code that was loaded or recorded computes what the pipeline's own does."""
