"""The sandbox upstream: a local server that speaks the protocols of upstreams, deterministic, with faults on request."""
