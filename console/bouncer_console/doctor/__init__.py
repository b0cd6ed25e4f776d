"""`bouncer doctor`: what is right and wrong with an account and a stack, and how to mend it.

reader.py reads an account, checks/ judge what was read, command.py shows it. Nothing is changed.
"""
