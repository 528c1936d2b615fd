"""The model families: their classes, loaders and shipped configurations."""
