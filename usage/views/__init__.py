"""The pages about usage, and about the budgets that limit it."""
