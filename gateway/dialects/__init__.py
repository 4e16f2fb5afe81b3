"""The protocols clients speak: one module for each endpoint that costs something; `dialect.py` says what one is."""
