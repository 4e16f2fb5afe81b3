"""What can be called and what it costs: providers, models, effective-dated prices, upstreams."""
