"""One run's folder: trained, recorded, read again."""
