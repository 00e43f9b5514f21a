"""Serving: a scorer and new images in; tables, maps, overlays and HTTP answers out."""
