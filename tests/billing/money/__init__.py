"""Any sequence of acts on an account's money, with crashes, beside a model of what must be left."""
