"""The data plane: a plain ASGI application for /v1/*, one module per stage of a request."""
