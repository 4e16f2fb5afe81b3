"""The sandbox upstream: a local server that speaks OpenAI's protocol, deterministic, with faults on request."""
