"""How dates are written by Django itself: in the operator's admin."""
