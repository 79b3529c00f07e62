import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { murmur2, partitionForKey } from '../../protocol/murmur2.ts';

interface KeyVector {
  key: string;
  murmur2: number;
  of6: number;
  of1000: number;
}

test('a key goes to the partition that the Java client chooses', (t) => {
  const text = readFileSync(join(process.cwd(), 'test/protocol/golden-batches/vectors.json'), 'utf8');
  const { keys } = JSON.parse(text) as { keys: KeyVector[] };
  t.true(keys.length > 5);
  for (const vector of keys) {
    const key = Buffer.from(vector.key, 'hex');
    t.is(murmur2(key), vector.murmur2);
    t.is(partitionForKey(key, 6), vector.of6);
    t.is(partitionForKey(key, 1000), vector.of1000);
  }
});
