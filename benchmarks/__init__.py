"""Measurements of speed and memory; none is asserted in a test."""
