"""What a sweep shows: tables, plots, claims, a page."""
