"""Recipes, one a file: each docstring gives the command, the expected time and score."""
