"""A detector on a data set: metrics, intervals, figures, the proxy."""
