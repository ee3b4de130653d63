"""Reading files of others inertly: nothing here runs, imports or believes what a file says.

Standard library only, so that a child process with little memory can use it.
"""
