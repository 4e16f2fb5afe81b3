"""What was used: records, rollups, daily allowances, anomalies, and the audit of it all."""
