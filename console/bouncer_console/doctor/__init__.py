"""`bouncer doctor`: what is right and wrong with an account and a stack, and how to mend it.

account.py reads, checks.py judges what was read, command.py shows it. Nothing is changed.
"""
