import test from 'ava';
import fc from 'fast-check';
import { crc32c, crc32cByTable, registerCrc32c } from '../../protocol/crc32c.ts';

/** By the definition, a bit at a time. */
function crc32cByBit(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f63b78);
  }
  return ~crc >>> 0;
}

test.afterEach.always(() => registerCrc32c(undefined));

test('the checksums are those of RFC 3720', (t) => {
  // Appendix B.4, and the check value of the CRC catalogues.
  t.is(crc32c(Buffer.alloc(32), 0, 32), 0x8a9136aa);
  t.is(crc32c(Buffer.alloc(32, 0xff), 0, 32), 0x62a8ab43);
  const rising = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
  t.is(crc32c(rising, 0, 32), 0x46dd794e);
  t.is(crc32c(rising.toReversed(), 0, 32), 0x113fdb5c);
  t.is(crc32c(Buffer.from('123456789'), 0, 9), 0xe3069283);
  t.is(crc32c(Buffer.alloc(0), 0, 0), 0);
});

test('any bytes at any place give what the definition gives', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(20), (bytes, before) => {
      const placed = Buffer.concat([Buffer.alloc(before, 0x55), bytes, Buffer.alloc(9, 0x55)]);
      t.is(crc32c(placed, before, bytes.length), crc32cByBit(bytes));
    }),
  );
});

test('a checksum goes on from the one of the bytes before', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(400), (bytes, at) => {
      const cut = Math.min(at, bytes.length);
      const first = crc32c(bytes, 0, cut);
      t.is(crc32c(bytes, cut, bytes.length - cut, first), crc32c(bytes, 0, bytes.length));
    }),
  );
});

test('a registered implementation does the larger inputs, with their seed', (t) => {
  const sizes: number[] = [];
  registerCrc32c((bytes, seed) => {
    sizes.push(bytes.length);
    return crc32cByTable(bytes, 0, bytes.length, seed);
  });
  const bytes = Buffer.alloc(1000, 'abc');
  const whole = crc32cByTable(bytes, 0, 1000);
  t.is(crc32c(bytes, 100, 900, crc32c(bytes, 0, 100)), whole);
  t.deepEqual(sizes, [900]);
});
