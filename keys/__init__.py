"""Credentials and their policy: issuing, rotating, revoking and authenticating API keys."""
