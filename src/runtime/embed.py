#!/usr/bin/env python3
"""Writes an assembler file that carries a binary byte by byte, between hutch_agent_begin and hutch_agent_end."""
import hashlib
import os
import sys

binary, output = sys.argv[1:]
with open(binary, "rb") as f:
    digest = hashlib.sha256(f.read()).hexdigest()
with open(output, "w") as f:
    f.write(f"""/* sha256 {digest} */
    .section .rodata
    .global hutch_agent_begin
    .global hutch_agent_end
    .balign 16
hutch_agent_begin:
    .incbin "{os.path.abspath(binary)}"
hutch_agent_end:
    .byte 0
    .section .note.GNU-stack,"",%progbits
""")
