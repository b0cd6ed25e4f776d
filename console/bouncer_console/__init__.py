"""`bouncer`: ask before you act, and operate what is deployed."""
