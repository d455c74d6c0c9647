"""Raw data: readers of the real formats, and generators that write the same formats."""
