"""What `launch.benchmark` measures, and how: a median of turns, each implementation in turn."""
