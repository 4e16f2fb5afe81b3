"""Money: wallets, holds, the double-entry ledger, budgets and top-ups."""
