"""Inference: trained heads in; a detector, calibrated scores and exported files out.

(Nothing is imported here, so that `inference.artifact` loads without the code that trains.)
"""
