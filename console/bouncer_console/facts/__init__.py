"""What the deployed stack did, from its log: the facts that `find`, `report` and the page show.

`insights` reads lines, `mails` makes a mail of its lines, `source` knows the stack, and `totals`
counts; all but `insights` and `source` are pure.
"""
