"""What keeps this process from being ready beside its services: the gateway notes it here, /health/ready says it."""

OK = "ok"
NOT_WRITABLE = "not writable"

# While anything is owed that neither PostgreSQL nor the disk takes, it would be lost with this process.
journal = OK
