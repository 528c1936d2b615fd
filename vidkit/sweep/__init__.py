"""Sweeps: a grid of requests, run by papermill in a warm kernel, resumable, with a report of the videos."""
