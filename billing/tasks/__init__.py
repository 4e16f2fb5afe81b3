"""The deferred and periodic work on money. Each task finds by itself what is due."""
