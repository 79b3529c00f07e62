/** Each codec as it is built in; test/storage/native.test.ts puts the installed ones beside them. */
import { gzipSync } from 'node:zlib';
import test from 'ava';
import fc from 'fast-check';
import { type Codec, compress, decompress, isAvailable, registerCodec } from '../../protocol/compression.ts';
import { MillraceError } from '../../protocol/errors.ts';
import { xxh32 } from '../../protocol/lz4.ts';
import { loadNative } from '../../storage/native.ts';

await loadNative({ pure: true });

const CODECS: Codec[] = ['gzip', 'snappy', 'lz4', 'zstd'];

/** Bytes with repeats near and far, runs and noise, as records have them. */
const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 3000 }),
  fc
    .array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 1, max: 300 })), {
      maxLength: 12,
    })
    .map((parts) => Buffer.concat(parts.map(([bytes, times]) => Buffer.concat(Array(times).fill(bytes))))),
);

const sizes = [0, 1, 2, 4, 5, 11, 12, 13, 63, 64, 65, 32767, 32768, 32769, 65535, 65536, 65537, 200_000];

test('every codec gives back what it was given', (t) => {
  for (const codec of CODECS) {
    fc.assert(
      fc.property(anyBytes, (bytes) => {
        t.true(decompress(codec, compress(codec, bytes), bytes.length).equals(bytes));
      }),
    );
  }
});

test('every codec gives back sizes around the edges of blocks, zeros, text and noise', (t) => {
  let state = 1;
  const noise = Buffer.from(
    Array.from({ length: 200_000 }, () => (state = Math.imul(state, 1_103_515_245) + 12_345) >>> 24),
  );
  const text = Buffer.from(Array.from({ length: 12_000 }, (_, index) => `record ${(index * 7919) % 1000};`).join(''));
  for (const codec of CODECS) {
    for (const size of sizes) {
      for (const bytes of [Buffer.alloc(size), text.subarray(0, size), noise.subarray(0, size)]) {
        const packed = compress(codec, bytes);
        t.true(decompress(codec, packed, bytes.length).equals(bytes), `${codec} ${size}`);
        t.true(packed.length <= bytes.length + bytes.length / 100 + 100, `${codec} ${size} packs to ${packed.length}`);
      }
    }
    t.true(compress(codec, text).length < text.length / 2, `${codec} compresses text`);
  }
});

test('nothing larger than allowed comes out', (t) => {
  for (const codec of CODECS) {
    for (const bytes of [Buffer.alloc(10_000_000), Buffer.from('x'.repeat(33)), Buffer.alloc(70_000, 'record')]) {
      const packed = compress(codec, bytes);
      t.throws(() => decompress(codec, packed, bytes.length - 1), { code: 'MESSAGE_TOO_LARGE' }, codec);
      t.throws(() => decompress(codec, packed, 0), { code: 'MESSAGE_TOO_LARGE' }, codec);
      t.is(decompress(codec, packed, bytes.length).length, bytes.length);
    }
  }
});

test('a claimed size that the input cannot hold is not believed', (t) => {
  const claims: [Codec, string][] = [
    // A snappy block that says it holds 4 GiB.
    ['snappy', 'ffffffff0f00'],
    // An LZ4 frame with a content size of 2^40 around an empty block list; its checksum is right.
    ['lz4', lz4Frame('68', '40', '0000000000010000', '00000000')],
    // A zstd frame of 2^40 bytes in one empty block.
    ['zstd', '28b52ffde00000000000010000010000'],
  ];
  for (const [codec, hex] of claims) {
    t.throws(() => decompress(codec, Buffer.from(hex, 'hex'), 2 ** 41), { code: 'INVALID_RECORD' }, codec);
  }
});

test('random and broken bytes give an error of ours or some bytes within the limit', (t) => {
  for (const codec of CODECS) {
    const good = compress(codec, Buffer.from('some records, some records, some other records'.repeat(20)));
    const broken = fc
      .array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 3 })
      .map((all) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of all) bytes[at] = value;
        return bytes;
      });
    const cut = fc.nat(good.length - 1).map((size) => good.subarray(0, size));
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 100 }), broken, cut), (bytes) => {
        try {
          t.true(decompress(codec, bytes, 5000).length <= 5000);
        } catch (error) {
          t.true(error instanceof MillraceError, `${codec}: ${String(error)}`);
        }
      }),
      { numRuns: 300 },
    );
  }
});

test('snappy is read as one bare block, as a stream, and as streams behind each other', (t) => {
  const stream = compress('snappy', Buffer.from('one '.repeat(20)));
  t.is(stream.subarray(0, 16).toString('hex'), '82534e41505059000000000100000001');
  t.is(decompress('snappy', stream.subarray(20), 80).toString(), 'one '.repeat(20));
  const both = Buffer.concat([stream, compress('snappy', Buffer.from('two'))]);
  t.is(decompress('snappy', both, 83).toString(), `${'one '.repeat(20)}two`);
  t.throws(() => decompress('snappy', both, 82), { code: 'MESSAGE_TOO_LARGE' });
  t.throws(() => decompress('snappy', Buffer.alloc(0), 80), { code: 'INVALID_RECORD' });
});

/** An LZ4 frame by hand: flags, block code, header fields and the rest in hex. */
function lz4Frame(flags: string, blockCode: string, fields: string, rest: string): string {
  const descriptor = Buffer.from(flags + blockCode + fields, 'hex');
  const checksum = (xxh32(descriptor, 0, descriptor.length) >>> 8) & 0xff;
  return `04224d18${descriptor.toString('hex')}${checksum.toString(16).padStart(2, '0')}${rest}`;
}

test('LZ4 frames of any kind are read', (t) => {
  const read = (hex: string) => decompress('lz4', Buffer.from(hex, 'hex'), 1000).toString();
  const word = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value >>> 0);
    return bytes.toString('hex');
  };
  const stored = `${word(0x80000005)}${Buffer.from('hello').toString('hex')}`;
  const hash = word(xxh32(Buffer.from('hello'), 0, 5));
  t.is(read(lz4Frame('60', '40', '', `${stored}00000000`)), 'hello');
  t.is(read(lz4Frame('60', '70', '', `${stored}${stored}00000000`)), 'hellohello');
  t.is(read(lz4Frame('68', '40', '0500000000000000', `${stored}00000000`)), 'hello', 'content size');
  t.is(read(lz4Frame('70', '40', '', `${stored}${hash}00000000`)), 'hello', 'block checksum');
  t.is(read(lz4Frame('64', '40', '', `${stored}00000000${hash}`)), 'hello', 'content checksum');
  // A second block that copies eight bytes from the first one (distance 5), then five literals.
  const linked = `${word(9)}04050050${Buffer.from('world').toString('hex')}`;
  t.is(read(lz4Frame('40', '40', '', `${stored}${linked}00000000`)), 'hellohellohelworld', 'linked blocks');
  const skippable = `502a4d18${word(3)}616263`;
  const plain = lz4Frame('60', '40', '', `${stored}00000000`);
  t.is(read(skippable + plain + skippable + plain), 'hellohello', 'frames behind each other');

  const wrong: [string, string][] = [
    ['the header checksum', '04224d18604000' + `${stored}00000000`],
    ['the version', lz4Frame('a0', '40', '', `${stored}00000000`)],
    ['the block code', lz4Frame('60', '30', '', `${stored}00000000`)],
    ['a dictionary', lz4Frame('61', '40', '00000000', `${stored}00000000`)],
    ['the block checksum', lz4Frame('70', '40', '', `${stored}0000000000000000`)],
    ['the content checksum', lz4Frame('64', '40', '', `${stored}0000000000000000`)],
    ['the content size', lz4Frame('68', '40', '0400000000000000', `${stored}00000000`)],
    ['no end mark', lz4Frame('60', '40', '', stored)],
    ['a copy from before an independent block', lz4Frame('60', '40', '', `${stored}${linked}00000000`)],
    ['bytes after the end', `${plain}00`],
  ];
  for (const [what, hex] of wrong) t.throws(() => read(hex), { code: 'INVALID_RECORD' }, what);
});

test('xxh32 gives the values of its specification', (t) => {
  const hash = (text: string) => xxh32(Buffer.from(text), 0, Buffer.byteLength(text));
  t.is(hash(''), 0x02cc5d05);
  t.is(hash('a'), 0x550d7456);
  t.is(hash('abc'), 0x32d153ff);
  t.is(hash('Nobody inspects the spammish repetition'), 0xe2293b2f);
});

test('zstd frames with and without a size, behind each other and skippable are read', (t) => {
  const known = Buffer.from('28b52ffd04587d0000486d696c6c726163652001009ccb11af35f474', 'hex');
  t.is(decompress('zstd', known, 26).toString(), 'millrace millrace millrace');
  t.throws(() => decompress('zstd', known, 25), { code: 'MESSAGE_TOO_LARGE' });
  const skippable = Buffer.from('502a4d1803000000616263', 'hex');
  const all = Buffer.concat([known, skippable, compress('zstd', Buffer.from(' and more')), known]);
  t.is(decompress('zstd', all, 100).toString(), 'millrace millrace millrace and moremillrace millrace millrace');
  t.throws(() => decompress('zstd', Buffer.concat([known, Buffer.from('x')]), 100), { code: 'INVALID_RECORD' });
});

test('thousands of pieces with next to nothing in them are refused', (t) => {
  const times = (bytes: Buffer, count: number) => Buffer.concat(Array<Buffer>(count).fill(bytes));
  const snappyStream = compress('snappy', Buffer.alloc(0));
  const inputs: [Codec, Buffer][] = [
    ['snappy', Buffer.concat([snappyStream, times(Buffer.from('0000000100', 'hex'), 10_000)])],
    ['lz4', times(compress('lz4', Buffer.alloc(0)), 10_000)],
    ['zstd', times(compress('zstd', Buffer.alloc(0)), 10_000)],
  ];
  for (const [codec, input] of inputs) {
    t.throws(() => decompress(codec, input, 1_000_000), { code: 'INVALID_RECORD' }, codec);
  }
});

test('gzip with several members is read', (t) => {
  const both = Buffer.concat([gzipSync('one '), gzipSync('two')]);
  t.is(decompress('gzip', both, 7).toString(), 'one two');
});

test('none is the same bytes, and a codec that is not there says so', (t) => {
  const bytes = Buffer.from('abc');
  t.is(compress('none', bytes).buffer, bytes.buffer);
  t.is(decompress('none', bytes, 3).toString(), 'abc');
  t.true(isAvailable('none'));
  t.true(isAvailable('gzip'));
  const missing = {
    compress: (): Buffer => {
      throw new Error('broken');
    },
    decompress: (): Buffer => {
      throw new Error('broken');
    },
  };
  registerCodec('gzip', missing);
  t.throws(() => decompress('gzip', bytes, 3), { instanceOf: MillraceError, code: 'INVALID_RECORD' });
  registerCodec('gzip', undefined);
  t.is(decompress('gzip', compress('gzip', bytes), 3).toString(), 'abc');
});
