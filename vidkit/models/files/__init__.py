"""Model files: their formats and headers, what of them is safe, their contents' hash."""
