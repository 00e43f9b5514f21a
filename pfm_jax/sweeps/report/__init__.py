"""The report: a sweep's cells in; the paper's tables, figures and claims on one page out."""
