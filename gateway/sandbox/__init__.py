"""The sandbox upstream: a local server that speaks what upstreams speak, deterministic, with faults on request."""
