/** What headers say to queues, and what a message carries when it moves on. */
import test from 'ava';
import {
  type AttributeOptions,
  batchAttributes,
  deadLetter,
  deathHistory,
  headerNames,
  isDeathCycle,
  messageId,
  messageOrigin,
  recordAttributes,
  renewed,
} from '../../broker/queue-attributes.ts';
import type { LeaveReason } from '../../broker/queue.ts';
import type { QueuedRecord } from '../../broker/queue-reader.ts';
import { buildBatch, type RecordInit } from '../../protocol/record-batch.ts';

const BYTES_MAX = 1_000_000;
const fromClient: AttributeOptions = { isFromClient: true, isGrouped: false, dedupBy: 'id' };

const headers = (values: Record<string, string | null>) =>
  Object.entries(values).map(([key, value]) => ({ key, value: value === null ? null : Buffer.from(value) }));

const record = (values: Record<string, string | null>, more: Partial<QueuedRecord> = {}): QueuedRecord => ({
  offset: 5,
  timestamp: 1000,
  key: null,
  value: Buffer.from('v'),
  headers: headers(values),
  ...more,
});

const nothing = {
  priority: 0,
  notBeforeMs: 0,
  expiresAtMs: Number.POSITIVE_INFINITY,
  group: undefined,
  dedupId: undefined,
};

test('a record without documented headers says nothing', (t) => {
  t.is(recordAttributes(record({ other: 'x' }), fromClient), undefined);
  t.is(recordAttributes(record({ 'millrace.delay.ms': '0' }), { ...fromClient, appendTimeMs: 0 }), undefined);
});

test('delay and TTL count from the append; of two limits the stricter counts', (t) => {
  const at = { ...fromClient, appendTimeMs: 5000 };
  t.deepEqual(recordAttributes(record({ 'millrace.delay.ms': '250', 'millrace.ttl.ms': '900' }), at), {
    ...nothing,
    notBeforeMs: 5250,
    expiresAtMs: 5900,
  });
  t.deepEqual(recordAttributes(record({ 'millrace.delay.ms': '250', 'millrace.not.before.ms': '6000' }), at), {
    ...nothing,
    notBeforeMs: 6000,
  });
  t.deepEqual(recordAttributes(record({ 'millrace.ttl.ms': '250', 'millrace.expires.at.ms': '6000' }), at), {
    ...nothing,
    expiresAtMs: 5250,
  });
  t.is(
    recordAttributes(record({ 'millrace.ttl.ms': '250' }), fromClient)?.expiresAtMs,
    1250,
    'its own time, if no other',
  );
});

test('priority, group and dedup id are taken as they are', (t) => {
  const values = { 'millrace.priority': '255', 'millrace.group': 'größe', 'millrace.dedup.id': 'id-1' };
  t.deepEqual(recordAttributes(record(values), fromClient), {
    ...nothing,
    priority: 255,
    group: 'größe',
    dedupId: 'id-1',
  });
  t.is(recordAttributes(record(values), { ...fromClient, dedupBy: undefined })?.dedupId, undefined);
});

test('the key is the group of ordered queues, unless a header says another; a null key is none', (t) => {
  const grouped = { ...fromClient, isGrouped: true };
  const group = (key: Buffer | null, values = {}) => recordAttributes(record(values, { key }), grouped)?.group;
  t.is(group(Buffer.from('k')), 'k');
  t.is(group(Buffer.from('k'), { 'millrace.group': 'g' }), 'g');
  t.is(group(null), undefined);
  t.is(group(Buffer.alloc(0)), '');
  const groups = [
    Buffer.from([0xff]),
    Buffer.from([0xfe]),
    Buffer.from('\u00ff'),
    Buffer.alloc(300, 'a'),
    Buffer.alloc(301, 'a'),
    Buffer.alloc(256, 'a'),
  ].map((key) => group(key));
  t.is(new Set(groups).size, groups.length, 'different keys are different groups');
  t.is(recordAttributes(record({}, { key: Buffer.from('k') }), fromClient), undefined, 'not for other queues');
});

test('deduplication by content takes the value, or the id that was given', (t) => {
  const byContent: AttributeOptions = { ...fromClient, dedupBy: 'content' };
  const id = (value: string | null, values = {}) =>
    recordAttributes(record(values, { value: value === null ? null : Buffer.from(value) }), byContent)?.dedupId;
  t.is(id('a'), id('a'));
  t.not(id('a'), id('b'));
  t.not(id('a'), undefined);
  t.is(id('a', { 'millrace.dedup.id': 'x' }), 'x');
});

test('a value that cannot be is refused by name, a reserved header by what is allowed', (t) => {
  const refused = (values: Record<string, string | null>, message: RegExp) =>
    t.throws(() => recordAttributes(record(values), fromClient), { code: 'INVALID_RECORD', message });
  refused(
    { 'millrace.delay.ms': '-1' },
    /'millrace.delay.ms' must be a whole number from 0 to 10000000000000 .*not '-1'/,
  );
  refused({ 'millrace.delay.ms': '10000000000001' }, /not '10000000000001'/);
  refused({ 'millrace.ttl.ms': '1.5' }, /not '1.5'/);
  refused({ 'millrace.ttl.ms': '' }, /not ''/);
  refused({ 'millrace.ttl.ms': null }, /not null/);
  refused({ 'millrace.priority': '256' }, /from 0 to 255/);
  refused({ 'millrace.group': '' }, /'millrace.group' must be 1 to 256 bytes of UTF-8/);
  refused({ 'millrace.dedup.id': 'x'.repeat(257) }, /not 257 bytes/);
  refused({ 'millrace.death': '{}' }, /'millrace.death' is reserved; producers may set millrace.delay.ms, /);
  refused({ 'millrace.anything': '1' }, /reserved/);
  const twice = [...headers({ 'millrace.priority': '1' }), ...headers({ 'millrace.priority': '2' })];
  t.throws(() => recordAttributes(record({}, { headers: twice }), fromClient), { message: /given twice/ });
});

test('what the log has already is never refused', (t) => {
  const fromLog: AttributeOptions = { ...fromClient, isFromClient: false };
  const values = { 'millrace.ttl.ms': 'soon', 'millrace.death': '{', 'millrace.x': 'y', 'millrace.priority': '3' };
  t.deepEqual(recordAttributes(record(values), fromLog), { ...nothing, priority: 3 });
});

for (const compression of ['none', 'gzip'] as const) {
  test(`a batch tells which of its records say anything, ${compression}`, (t) => {
    const records: RecordInit[] = [
      { key: null, value: Buffer.from('millrace. in a value'), timestamp: 10 },
      { key: null, value: null, headers: headers({ 'millrace.priority': '4' }), timestamp: 20 },
      { key: Buffer.from('k'), value: null, headers: headers({ h: 'millrace.priority' }), timestamp: 30 },
      { key: null, value: null, headers: headers({ h: 'x', 'millrace.ttl.ms': '5' }), timestamp: 40 },
      { key: null, value: Buffer.from('end'), timestamp: 50 },
    ];
    const batch = buildBatch(records, { compression });
    t.deepEqual(batchAttributes(batch, 0, BYTES_MAX, fromClient), {
      recordCount: 5,
      entries: [
        { offsetDelta: 1, attributes: { ...nothing, priority: 4 } },
        { offsetDelta: 3, attributes: { ...nothing, expiresAtMs: 45 } },
      ],
    });
    const grouped = batchAttributes(batch, 0, BYTES_MAX, { ...fromClient, isGrouped: true });
    t.deepEqual(
      grouped.entries.map(({ offsetDelta, attributes }) => [offsetDelta, attributes.group]),
      [
        [1, undefined],
        [2, 'k'],
        [3, undefined],
      ],
    );
    const appendTime = buildBatch(records, { compression, timestampType: 'LogAppendTime' });
    t.is(batchAttributes(appendTime, 0, BYTES_MAX, fromClient).entries[1].attributes.expiresAtMs, 55);
    const bad = buildBatch([
      ...records,
      { key: null, value: null, headers: headers({ 'millrace.id': '' }), timestamp: 1 },
    ]);
    t.throws(() => batchAttributes(bad, 0, BYTES_MAX, fromClient), {
      code: 'INVALID_RECORD',
      message: /^record 5 of the batch: header 'millrace.id' is reserved/,
    });
  });
}

const topicId = '3f6e0e2a-9b1c-4d5e-8f70-112233445566';
const place = { topicId, topic: 'orders', partition: 2, offset: 5 };

test('a message id is a UUID that depends on the place alone, and is carried on', (t) => {
  const id = messageId(place, []);
  t.regex(id, /^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  t.is(id, messageId({ ...place }, []));
  const others = [
    messageId({ ...place, offset: 6 }, []),
    messageId({ ...place, partition: 3 }, []),
    messageId({ ...place, topicId: '3f6e0e2a-9b1c-4d5f-8f70-112233445566' }, []),
  ];
  t.is(new Set([id, ...others]).size, 4);
  t.is(messageId(place, headers({ [headerNames.id]: 'carried' })), 'carried');
});

const die = (from: QueuedRecord, queue: string, reason: LeaveReason, timeMs: number, offset = 5) => {
  const dead = deadLetter(from, { queue, reason, timeMs, place: { ...place, topic: queue, offset } });
  const next: QueuedRecord = {
    offset: offset + 1,
    timestamp: dead.copy.timestamp,
    key: Buffer.from(dead.copy.key ?? ''),
    value: Buffer.from(dead.copy.value ?? ''),
    headers: (dead.copy.headers ?? []).map(({ key, value }) => ({ key, value: value && Buffer.from(value) })),
  };
  return { ...dead, next };
};

test('a dead letter keeps the message, its id and its origin, and loses its times', (t) => {
  const message = record(
    {
      app: 'x',
      'millrace.ttl.ms': '100',
      'millrace.delay.ms': '5',
      'millrace.priority': '3',
      'millrace.group': 'g',
      'millrace.dedup.id': 'd',
    },
    { key: Buffer.from('k') },
  );
  const first = die(message, 'orders', 'expired', 2000);
  t.is(first.copy.key, message.key);
  t.is(first.copy.value, message.value);
  t.is(first.copy.timestamp, 2000);
  const names = (first.copy.headers ?? []).map(({ key }) => key);
  t.deepEqual(names, [
    'app',
    'millrace.priority',
    'millrace.group',
    'millrace.id',
    'millrace.origin.topic',
    'millrace.origin.partition',
    'millrace.origin.offset',
    'millrace.origin.time',
    'millrace.origin.dedup.id',
    'millrace.death',
  ]);
  t.is(messageId({ ...place, offset: 99 }, first.next.headers), messageId({ ...place, topic: 'orders' }, []));
  const second = die(first.next, 'dlq', 'rejected', 3000, 77);
  const origin = { topic: 'orders', partition: 2, offset: 5, timeMs: 1000 };
  t.deepEqual(messageOrigin(second.next.headers), origin);
  t.is(messageId(place, second.next.headers), messageId(place, first.next.headers));
  t.is(messageOrigin(message.headers), undefined);
  const [newest, oldest] = deathHistory(second.next.headers)?.deaths ?? [];
  t.deepEqual(newest, {
    queue: 'dlq',
    reason: 'rejected',
    count: 1,
    firstMs: 3000,
    lastMs: 3000,
    topic: 'dlq',
    partition: 2,
    offset: 77,
  });
  t.is(oldest.ttlMs, 100);
});

test('deaths of one queue and reason are counted and come first again', (t) => {
  let message = record({});
  message = die(message, 'a', 'rejected', 10).next;
  message = die(message, 'b', 'expired', 20).next;
  message = die(message, 'a', 'delivery_limit', 30).next;
  const { history } = die(message, 'a', 'rejected', 40);
  t.deepEqual(
    history.deaths.map(({ queue, reason, count, firstMs, lastMs }) => [queue, reason, count, firstMs, lastMs]),
    [
      ['a', 'rejected', 2, 10, 40],
      ['a', 'delivery_limit', 1, 30, 30],
      ['b', 'expired', 1, 20, 20],
    ],
  );
  t.deepEqual(history.first, { queue: 'a', reason: 'rejected', timeMs: 10 });
});

test('a message that came round without a reject is a cycle', (t) => {
  const expired = die(record({}), 'a', 'expired', 10);
  t.true(isDeathCycle(expired.history, 'a'), 'to itself');
  t.false(isDeathCycle(expired.history, 'b'));
  const twice = die(expired.next, 'b', 'maxlen', 20);
  t.true(isDeathCycle(twice.history, 'a'));
  t.false(isDeathCycle(die(expired.next, 'b', 'rejected', 20).history, 'a'), 'a reject breaks it');
  t.false(isDeathCycle(die(record({}), 'a', 'rejected', 10).history, 'a'));
  const before = die(die(record({}), 'a', 'rejected', 10).next, 'b', 'expired', 20);
  t.false(isDeathCycle(before.history, 'a'), 'a reject on the way since then, that of a itself included');
});

test('a history is bounded, and garbage is none', (t) => {
  let message = record({});
  for (let number = 0; number < 70; number++) message = die(message, `q${number}`, 'expired', number).next;
  const history = deathHistory(message.headers);
  t.is(history?.deaths.length, 64);
  t.is(history?.deaths[0].queue, 'q69');
  t.is(history?.first.queue, 'q0');
  for (const text of [
    '',
    '{',
    'null',
    '{}',
    '{"first":{"queue":"a"},"deaths":[]}',
    '{"first":{"queue":"a"},"deaths":[null]}',
  ]) {
    t.is(deathHistory(headers({ 'millrace.death': text })), undefined, text);
  }
});

test('a message sent anew has no old place or times, but its history', (t) => {
  const dead = die(record({ app: 'x', 'millrace.delay.ms': '5', 'millrace.priority': '2' }), 'a', 'rejected', 10).next;
  const anew = renewed(dead, 99);
  t.is(anew.timestamp, 99);
  t.deepEqual(
    (anew.headers ?? []).map(({ key }) => key),
    ['app', 'millrace.priority', 'millrace.death'],
  );
});
