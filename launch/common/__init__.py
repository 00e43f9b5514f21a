"""Shared parts of the launchers: start-up and errors, groups of flags, the recipe's flag."""
