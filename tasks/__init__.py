"""Prefect tasks: chunked, retryable steps around library functions."""
