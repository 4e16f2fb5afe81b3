"""People and who they act for: users, accounts, memberships, plans, and the trail of what they did."""
