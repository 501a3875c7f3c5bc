"""Small wrong versions of the code, of the kind a tired author writes, and whether a test notices each of them.

`python -m tests.mutants` applies each one alone, in a copy of the tree, and runs the tests of its file up to the first
that fails. It is no part of the test suite: all of them take the better part of an hour.
"""
