import test from 'ava';
import {
  decodeGroupEvent,
  encodeGroupEvent,
  type GroupEvent,
  groupEventBytes,
  subscribedTopics,
} from '../../broker/group-records.ts';
import { buildBatch, readRecords } from '../../protocol/record-batch.ts';
import { subscription } from '../support/group-bench.ts';

const T1 = 'bfa9ef04-f8d7-4523-bd6f-b7c5a48a5ea2';
const ZERO = '00000000-0000-0000-0000-000000000000';

/** Keys and values as Apache Kafka 4.4.0 wrote them into its own `__consumer_offsets`. */
const golden: { title: string; key: string; value: string | null; event: GroupEvent }[] = [
  {
    title: 'a committed offset',
    key: '0001000267310002743100000000',
    value: '0004000000000000000500000000036869000001a20ccf6964010010bfa9ef04f8d74523bd6fb7c5a48a5ea2',
    event: {
      kind: 'offset',
      group: 'g1',
      topic: 't1',
      partition: 0,
      committed: {
        offset: 5,
        leaderEpoch: 0,
        metadata: 'hi',
        commitTimeMs: 0x1a20ccf6964,
        expireTimeMs: -1,
        topicId: T1,
      },
    },
  },
  {
    title: 'a committed offset without metadata or leader epoch',
    key: '0001000267310002743100000001',
    value: '0004fffffffffffffffbffffffff01000001a20ccf6964010010bfa9ef04f8d74523bd6fb7c5a48a5ea2',
    event: {
      kind: 'offset',
      group: 'g1',
      topic: 't1',
      partition: 1,
      committed: {
        offset: -5,
        leaderEpoch: -1,
        metadata: '',
        commitTimeMs: 0x1a20ccf6964,
        expireTimeMs: -1,
        topicId: T1,
      },
    },
  },
  {
    title: 'a committed offset with its own expiry',
    key: '0001000267310002743200000000',
    value: '000100000000000000070000000001a20ccc8a72000001a20cce1112',
    event: {
      kind: 'offset',
      group: 'g1',
      topic: 't2',
      partition: 0,
      committed: {
        offset: 7,
        leaderEpoch: -1,
        metadata: '',
        commitTimeMs: 0x1a20ccc8a72,
        expireTimeMs: 0x1a20cce1112,
        topicId: ZERO,
      },
    },
  },
  {
    title: 'the end of an offset',
    key: '0001000267310002743200000000',
    value: null,
    event: { kind: 'offset gone', group: 'g1', topic: 't2', partition: 0 },
  },
  {
    title: 'a group with a static member',
    key: '000200026773',
    value:
      '00030008636f6e73756d657200000001000572616e6765002769312d35633631656631342d323232342d343435362d396163652d3561356366353931653465' +
      '61000001a20ccf699700000001002769312d35633631656631342d323232342d343435362d396163652d3561356366353931653465610002693100027331' +
      '000a2f3132372e302e302e3100004e20000027100000001200010000000100027431ffffffff00000000000000020001',
    event: {
      kind: 'group',
      group: 'gs',
      value: {
        protocolType: 'consumer',
        generation: 1,
        protocol: 'range',
        leader: 'i1-5c61ef14-2224-4456-9ace-5a5cf591e4ea',
        currentStateTimestamp: 0x1a20ccf6997,
        members: [
          {
            memberId: 'i1-5c61ef14-2224-4456-9ace-5a5cf591e4ea',
            groupInstanceId: 'i1',
            clientId: 's1',
            clientHost: '/127.0.0.1',
            rebalanceTimeout: 20_000,
            sessionTimeout: 10_000,
            subscription: Buffer.from('00010000000100027431ffffffff00000000', 'hex'),
            assignment: Buffer.from('0001', 'hex'),
          },
        ],
      },
    },
  },
  {
    title: 'an empty group',
    key: '000200026731',
    value: '00030008636f6e73756d657200000002ffffffff000001a20ccc8ae200000000',
    event: {
      kind: 'group',
      group: 'g1',
      value: {
        protocolType: 'consumer',
        generation: 2,
        protocol: null,
        leader: null,
        currentStateTimestamp: 0x1a20ccc8ae2,
        members: [],
      },
    },
  },
  { title: 'the end of a group', key: '000200026731', value: null, event: { kind: 'group gone', group: 'g1' } },
];

for (const { title, key, value, event } of golden) {
  test(`written as Apache Kafka writes it, and read: ${title}`, (t) => {
    const record = encodeGroupEvent(event, 1);
    t.is(Buffer.from(record.key ?? []).toString('hex'), key);
    t.is(record.value === null ? null : Buffer.from(record.value).toString('hex'), value);
    const batch = buildBatch([record]);
    const [read] = readRecords(batch, 0);
    t.deepEqual(decodeGroupEvent(read), event);
    t.true(groupEventBytes(event) >= batch.length - 61, 'estimated at least as large as it is');
  });
}

test('older record versions are read', (t) => {
  const read = (key: string, value: string): GroupEvent | undefined =>
    decodeGroupEvent({
      offset: 0,
      timestamp: 0,
      headers: [],
      key: Buffer.from(key, 'hex'),
      value: Buffer.from(value, 'hex'),
    });
  t.like(read('0001000267310002743200000000', '000300000000000000070000000500000000000000000001'), {
    committed: { offset: 7, leaderEpoch: 5, commitTimeMs: 1, topicId: ZERO },
  });
  t.like(read('0000000267310002743200000000', '0000000000000000000700000000000000000001'), {
    kind: 'offset',
    committed: { offset: 7, leaderEpoch: -1, commitTimeMs: 1, expireTimeMs: -1 },
  });
});

test('keys of other kinds are skipped', (t) => {
  const record = { offset: 0, timestamp: 0, headers: [], value: null };
  t.is(decodeGroupEvent({ ...record, key: Buffer.from('00630002', 'hex') }), undefined);
  t.is(decodeGroupEvent({ ...record, key: null }), undefined);
});

test('topics are read from any version of a subscription; what is none has no topics', (t) => {
  t.deepEqual(subscribedTopics(subscription('a', 'b')), ['a', 'b']);
  t.deepEqual(subscribedTopics(Buffer.from('0000000000010001610000000a', 'hex')), undefined);
  t.deepEqual(subscribedTopics(Buffer.from('00000000000100016100000000', 'hex')), ['a']);
  t.deepEqual(subscribedTopics(Buffer.from('00630000000100016100000000000000000000000100020000abcd', 'hex')), ['a']);
  t.is(subscribedTopics(Buffer.from('anything')), undefined);
  t.is(subscribedTopics(Buffer.alloc(0)), undefined);
});
