"""Many runs: the plan, its jobs, their engines, the results."""
