#!/usr/bin/env python3
"""embed.py NAME FILE OUTPUT: writes an assembler file that carries a file byte by byte.

It lies between hutch_NAME_begin and hutch_NAME_end; hutch_NAME_digest is the start of its SHA-256 as text."""
import hashlib
import os
import sys

name, file, output = sys.argv[1:]
with open(file, "rb") as f:
    digest = hashlib.sha256(f.read()).hexdigest()
with open(output, "w") as f:
    f.write(f"""/* sha256 {digest} */
    .section .rodata
    .global hutch_{name}_begin, hutch_{name}_end, hutch_{name}_digest
    .balign 16
hutch_{name}_begin:
    .incbin "{os.path.abspath(file)}"
hutch_{name}_end:
    .byte 0
hutch_{name}_digest:
    .asciz "{digest[:16]}"
    .section .note.GNU-stack,"",%progbits
""")
