import { createRequire } from 'node:module';
import test from 'ava';
import fc from 'fast-check';
import { type Codec, compress, decompress, isAvailable } from '../../protocol/compression.ts';
import { crc32c, crc32cByTable } from '../../protocol/crc32c.ts';
import { buildBatch, checkStoredBatch, readRecords } from '../../protocol/record-batch.ts';
import { zstdCodec } from '../../protocol/zstd.ts';
import { loadNative } from '../../storage/native.ts';
import { wasmZstd } from '../../storage/zstd-wasm.ts';

// Serial throughout: which implementation serves is a matter of the whole process.
const require = createRequire(import.meta.url);
function isInstalled(name: string): boolean {
  try {
    require.resolve(name);
    return true;
  } catch {
    return false;
  }
}

const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 2000 }),
  fc
    .array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 30 }), fc.integer({ min: 1, max: 5000 })), {
      maxLength: 5,
    })
    .map((parts) => Buffer.concat(parts.map(([bytes, times]) => Buffer.concat(Array(times).fill(bytes))))),
);

test.serial('what is installed is used, unless pure is asked for', async (t) => {
  const report = await loadNative();
  t.is(report.crc32c, isInstalled('@node-rs/crc32') ? 'native' : 'pure');
  t.is(report.lz4, isInstalled('lz4-napi') ? 'native' : 'pure');
  t.is(report.snappy, isInstalled('snappy') ? 'native' : 'pure');
  t.is(isAvailable('zstd'), report.zstd !== 'missing');
  const pure = await loadNative({ pure: true });
  t.deepEqual(pure, { ...report, crc32c: 'pure', lz4: 'pure', snappy: 'pure' });
});

test.serial('the environment can ask for pure, an option is stronger', async (t) => {
  process.env.MILLRACE_PURE = '1';
  try {
    t.is((await loadNative()).crc32c, 'pure');
    t.is((await loadNative({ pure: false })).crc32c, isInstalled('@node-rs/crc32') ? 'native' : 'pure');
  } finally {
    delete process.env.MILLRACE_PURE;
  }
});

test.serial('native and table checksums are the same, from any seed', async (t) => {
  await loadNative();
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 100, maxLength: 1000 }),
      fc.integer({ min: 0, max: 0xffffffff }),
      (bytes, seed) => {
        t.is(crc32c(bytes, 10, bytes.length - 10, seed), crc32cByTable(bytes, 10, bytes.length - 10, seed));
      },
    ),
  );
});

for (const codec of ['gzip', 'snappy', 'lz4', 'zstd'] as Codec[]) {
  test.serial(`${codec}: what one implementation writes the other reads`, async (t) => {
    const inputs = [...fc.sample(anyBytes, 60), Buffer.alloc(300_000, 'record '), Buffer.alloc(0)];
    for (const [writer, reader] of [
      [false, true],
      [true, false],
    ]) {
      await loadNative({ pure: writer });
      const packed = inputs.map((bytes) => compress(codec, bytes));
      await loadNative({ pure: reader });
      packed.forEach((bytes, index) => {
        t.true(decompress(codec, bytes, inputs[index].length).equals(inputs[index]), `${inputs[index].length} bytes`);
      });
    }
  });

  test.serial(`${codec}: the limit holds with what is installed`, async (t) => {
    await loadNative();
    const packed = compress(codec, Buffer.alloc(10_000_000));
    t.throws(() => decompress(codec, packed, 9_999_999), { code: 'MESSAGE_TOO_LARGE' });
    t.throws(() => decompress(codec, packed.subarray(0, packed.length >>> 1), 10_000_000), { code: 'INVALID_RECORD' });
  });
}

test.serial('batches of either kind are read by either kind', async (t) => {
  const records = Array.from({ length: 100 }, (_, index) => ({
    key: Buffer.from(`key ${index}`),
    value: Buffer.from(`value ${index} `.repeat(20)),
    timestamp: 1_700_000_000_000 + index,
  }));
  for (const compression of ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as Codec[]) {
    for (const pure of [true, false]) {
      await loadNative({ pure });
      const batch = buildBatch(records, { compression });
      await loadNative({ pure: !pure });
      t.is(checkStoredBatch(batch, 0, batch.length), batch.length);
      t.deepEqual(readRecords(batch, 0)[99].value, records[99].value);
    }
  }
});

test.serial('zstd from WebAssembly keeps no memory after large batches, and goes on after errors', (t) => {
  const codec = zstdCodec(wasmZstd());
  const large = codec.compress(Buffer.alloc(40_000_000, 'x'));
  const broken = Buffer.from(large);
  broken.fill(0x5a, 12);
  for (let round = 0; round < 12; round++) {
    t.is(codec.decompress(large, 40_000_000).length, 40_000_000);
    t.throws(() => codec.decompress(broken, 40_000_000), { code: 'INVALID_RECORD' });
    t.is(codec.decompress(codec.compress(Buffer.from(`round ${round}`)), 10).toString(), `round ${round}`);
  }
  // Twelve rounds leave 80 MB each behind if nothing is given back.
  t.true(process.memoryUsage().arrayBuffers < 600_000_000);
});
