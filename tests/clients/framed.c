/* Reads results from stdin: int32 little-endian index, int32 little-endian length, that many bytes, until the end.
 *
 * Prints index, length and CRC-32 of each, in a line of its own. Exit status 1: a frame is cut, or is none. */

#include <stdint.h>
#include <stdio.h>

static uint32_t crc_table[256];

static void make_table(void)
{
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        crc_table[n] = c;
    }
}

static uint32_t crc(uint32_t sum, const unsigned char *data, size_t size)
{
    for (size_t n = 0; n < size; n++)
        sum = crc_table[(sum ^ data[n]) & 0xff] ^ (sum >> 8);
    return sum;
}

/* Whatever the byte order of this machine is. */
static int32_t int32_at(const unsigned char *bytes)
{
    return (int32_t)((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24);
}

int main(void)
{
    static unsigned char data[65536];
    unsigned char header[8];

    make_table();
    for (;;) {
        size_t count = fread(header, 1, sizeof header, stdin);
        if (count == 0)
            return ferror(stdin) != 0;
        if (count < sizeof header) {
            fputs("the end came within a header\n", stderr);
            return 1;
        }
        int32_t number = int32_at(header), length = int32_at(header + 4);
        if (number < 0 || length < 0) {
            fprintf(stderr, "no header: index %d, length %d\n", (int)number, (int)length);
            return 1;
        }
        uint32_t sum = 0xffffffffu;
        for (int32_t rest = length; rest > 0;) {
            size_t most = (size_t)rest < sizeof data ? (size_t)rest : sizeof data;
            size_t got = fread(data, 1, most, stdin);
            if (got == 0) {
                fprintf(stderr, "the end came after %d of %d bytes of result %d\n", (int)(length - rest), (int)length,
                        (int)number);
                return 1;
            }
            sum = crc(sum, data, got);
            rest -= (int32_t)got;
        }
        printf("%d %d %08x\n", (int)number, (int)length, (unsigned)~sum);
        fflush(stdout);
    }
}
