"""A reader of torch files that executes no code in them; see README.md.

It only needs the standard library, so that a child process with little memory can use it.
"""
