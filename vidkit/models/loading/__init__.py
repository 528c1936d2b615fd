"""Components of pipelines from model files into memory, and the cache of those that stay there."""
