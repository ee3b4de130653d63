"""A reader of torch files that runs nothing in them; see README.md.

It needs the standard library only, so that a child process with little memory can use it.
"""
