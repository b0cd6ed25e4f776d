"""`bouncer mailbox`: the directory, one entry or a hundred thousand."""
