"""Reads results from stdin: int32 little-endian index, int32 little-endian length, that many bytes, until the end.

Prints index, length and CRC-32 of each, in a line of its own. Exit status 1: a frame is cut, or is none.
"""

import struct
import sys
import zlib


def main() -> int:
    while True:
        header = sys.stdin.buffer.read(8)
        if not header:
            return 0
        if len(header) < 8:
            print('the end came within a header', file=sys.stderr)
            return 1
        index, length = struct.unpack('<ii', header)
        if index < 0 or length < 0:
            print(f'no header: index {index}, length {length}', file=sys.stderr)
            return 1
        data = sys.stdin.buffer.read(length)
        if len(data) < length:
            print(f'the end came after {len(data)} of {length} bytes of result {index}', file=sys.stderr)
            return 1
        print(index, length, f'{zlib.crc32(data):08x}', flush=True)


sys.exit(main())
