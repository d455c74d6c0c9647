"""Pages to browse a dataset and its runs in: search, watch, accept or reject, compare."""
