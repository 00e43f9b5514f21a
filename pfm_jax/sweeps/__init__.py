"""Sweeps: recipes, categories and seeds in; a resumable grid of runs, and a report out."""
