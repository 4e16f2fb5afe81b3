"""In English, which all pages are written in."""
