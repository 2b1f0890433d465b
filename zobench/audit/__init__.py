"""The audit of an estimator from outside: what it does, which composition of ours it is, and the verdict of each check.

`zobench audit TARGET` is the command; `target` makes a subject of checks of whatever is named, `adapters` and `command`
of optimizers, of ask and tell, and of programs in other languages.
"""
