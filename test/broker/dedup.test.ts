/** The deduplication window against a plain map: what is found, forgotten, kept over restarts, and what it costs. */
import test from 'ava';
import { DedupBudget, dedupHash, DedupWindow } from '../../broker/dedup.ts';
import { SimRandom } from '../support/sim-random.ts';

interface Sent {
  readonly partition: number;
  readonly offset: number;
  readonly timeMs: number;
}

const windowOf = (windowMs = 1000, budget = new DedupBudget(1e9)): DedupWindow => new DedupWindow({ windowMs, budget });
const always = () => Number.MAX_SAFE_INTEGER;

/** Different ids whose hashes all meet in one place of the table, and others. */
function idOf(number: number, isMeeting: boolean): Buffer {
  if (!isMeeting) return dedupHash(`id-${number}`);
  const hash = Buffer.alloc(16);
  hash.writeUInt32BE(number, 8);
  return hash;
}

for (const isMeeting of [false, true]) {
  test(`finds what a plain map finds, over restarts too${isMeeting ? ', when all hashes meet' : ''}`, (t) => {
    for (let seed = 1; seed <= 6; seed++) {
      const random = new SimRandom(seed);
      const windowMs = random.pick([50, 1000, 100_000]);
      const durable = [0, 0, 0];
      const ends = [0, 0, 0];
      let budget = new DedupBudget(1e9);
      let window = windowOf(windowMs, budget);
      const ids = isMeeting ? 150 : 20_000;
      const model = new Map<number, Sent>();
      /** What the log has, for what must be added again. */
      let log: (Sent & { id: number })[] = [];
      let written: Buffer[] = [];
      let now = 1_000_000;
      let latest = now;
      for (let step = 0; step < 6000; step++) {
        if (random.chance(0.3)) now += random.between(0, 30);
        if (random.chance(0.01)) now -= random.between(0, 20);
        const id = random.between(0, ids);
        const found = window.find(idOf(id, isMeeting), now);
        const expected = model.get(id);
        // A clock that went back finds forgotten what had expired before.
        latest = Math.max(latest, now);
        if (found !== undefined || (expected !== undefined && expected.timeMs + windowMs > latest)) {
          t.deepEqual(found, expected);
          t.true(expected !== undefined && expected.timeMs + windowMs > now);
        } else {
          const partition = random.between(0, 2);
          const newest = log.findLast((other) => other.partition === partition)?.timeMs ?? 0;
          const sent = { partition, offset: ends[partition], timeMs: Math.max(now, newest) };
          ends[partition] += random.between(1, 3);
          window.add(idOf(id, isMeeting), sent);
          model.set(id, sent);
          log.push({ ...sent, id });
        }
        if (random.chance(0.1)) window.expire(now, random.between(1, 50));
        if (random.chance(0.1)) for (const partition of [0, 1, 2]) durable[partition] = ends[partition];
        if (random.chance(0.1)) {
          const changes = window.takeChanges((partition) => durable[partition]);
          if (changes !== undefined) written.push(changes);
        }
        if (random.chance(0.01)) written = [...window.snapshot()];
        if (random.chance(0.003)) {
          // A power cut: what was not durable is gone from the log.
          log = log.filter(({ partition, offset }) => offset < durable[partition]);
          for (const partition of [0, 1, 2]) ends[partition] = durable[partition];
          budget = new DedupBudget(1e9);
          window = windowOf(windowMs, budget);
          for (const bytes of written) window.applyChanges(bytes);
          model.clear();
          for (const { id: sentId, ...sent } of log) {
            model.set(sentId, sent);
            const known = window.coveredOffset(sent.partition);
            if (sent.offset >= known) window.add(idOf(sentId, isMeeting), sent);
          }
        }
      }
      t.is(budget.ids, window.size);
      window.expire(now + windowMs + 1000, Number.POSITIVE_INFINITY);
      t.is(window.size, 0);
      t.is(budget.ids, 0);
      t.is(window.nextExpiryMs, Number.POSITIVE_INFINITY);
    }
  });
}

test('an id whose record is not durable is not written down', (t) => {
  const durable = [0];
  const window = windowOf();
  window.add(dedupHash('a'), { partition: 0, offset: 0, timeMs: 1 });
  window.add(dedupHash('b'), { partition: 0, offset: 5, timeMs: 1 });
  t.is(
    window.takeChanges(() => durable[0]),
    undefined,
  );
  durable[0] = 3;
  const changes = window.takeChanges(() => durable[0]);
  t.is(
    window.takeChanges(() => durable[0]),
    undefined,
  );
  const again = windowOf();
  again.applyChanges(changes ?? Buffer.alloc(0));
  t.is(again.size, 1);
  t.is(again.coveredOffset(0), 3, 'and what comes after it is looked for in the log');
  again.add(dedupHash('b'), { partition: 0, offset: 5, timeMs: 1 });
  t.is(again.find(dedupHash('b'), 2)?.offset, 5);
});

test('records without ids are covered too, so that a restart does not read them again', (t) => {
  const window = windowOf();
  window.cover(0, 80);
  const again = windowOf();
  again.applyChanges(window.takeChanges(always) ?? Buffer.alloc(0));
  t.is(again.coveredOffset(0), 80);
  t.is(window.takeChanges(always), undefined);
});

test('what a log has lost is forgotten, for good', (t) => {
  const window = windowOf();
  for (let offset = 0; offset < 10; offset++) window.add(dedupHash(`${offset}`), { partition: 0, offset, timeMs: 1 });
  const before = window.takeChanges(always) ?? Buffer.alloc(0);
  window.forgetFrom(0, 4);
  t.is(window.size, 4);
  t.is(window.find(dedupHash('4'), 2), undefined);
  t.is(window.find(dedupHash('3'), 2)?.offset, 3);
  window.add(dedupHash('other'), { partition: 0, offset: 4, timeMs: 2 });
  const again = windowOf();
  again.applyChanges(before);
  again.applyChanges(window.takeChanges(always) ?? Buffer.alloc(0));
  t.is(again.size, 5);
  t.is(again.find(dedupHash('5'), 2), undefined);
  t.is(again.find(dedupHash('other'), 2)?.offset, 4);
});

test('no room: sends are refused until ids expire, whichever queue they are of', (t) => {
  const budget = new DedupBudget(3);
  const first = windowOf(1000, budget);
  const second = windowOf(1000, budget);
  first.add(dedupHash('a'), { partition: 0, offset: 0, timeMs: 100 });
  second.add(dedupHash('a'), { partition: 0, offset: 0, timeMs: 500 });
  second.checkRoom(1, 600);
  t.throws(() => second.checkRoom(2, 600), { code: 'THROTTLING_QUOTA_EXCEEDED', message: /queue\.dedup\.max/ });
  t.throws(() => second.checkRoom(2, 1200), { code: 'THROTTLING_QUOTA_EXCEEDED' });
  second.checkRoom(2, 1500);
  t.is(second.size, 0);
  first.clear();
  t.is(budget.ids, 0);
});

test('an id that expired may be sent again before it was forgotten', (t) => {
  const window = windowOf();
  window.add(dedupHash('a'), { partition: 0, offset: 0, timeMs: 100 });
  t.is(window.find(dedupHash('a'), 1099)?.offset, 0);
  t.is(window.find(dedupHash('a'), 1100), undefined);
  window.add(dedupHash('a'), { partition: 0, offset: 1, timeMs: 1100 });
  t.is(window.expire(1100), 1);
  t.is(window.find(dedupHash('a'), 1200)?.offset, 1);
  t.is(window.nextExpiryMs, 2100);
});

test('an id takes at most 40 bytes, and memory is given back', (t) => {
  const window = windowOf();
  const hash = Buffer.alloc(16);
  let largest = 0;
  for (let offset = 0; offset < 300_000; offset++) {
    hash.writeUInt32BE(Math.imul(offset, 2_654_435_761) >>> 0, 0);
    hash.writeUInt32BE(Math.imul(offset, 2_246_822_519) >>> 0, 4);
    hash.writeUInt32BE(offset, 8);
    window.add(hash, { partition: 0, offset, timeMs: 1000 });
    if (offset >= 10_000 && offset % 1000 === 0) largest = Math.max(largest, window.sizeBytes / window.size);
  }
  t.true(largest <= 40, `${largest} bytes`);
  window.expire(2000, 299_000);
  t.true(window.sizeBytes < 200_000, `${window.sizeBytes} bytes for 1000 ids`);
});
