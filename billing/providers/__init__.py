"""Payment companies: who takes the money for a top-up."""
