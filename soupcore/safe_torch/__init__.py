"""A reader of torch files that executes no code in them; see README.md.

It only needs the standard library, so that a child process with little memory can use it.
"""

import struct

# Limits of a process that reads a file, and the format of a reply; see `child`.
# They are here because callers do not need to import the reader itself.
MOST_MEMORY = 1 << 30  # bytes of address space
MOST_CPU_SECONDS = 8
MOST_OUTPUT = 64 << 20  # bytes
STATUS = struct.Struct("i")
