import test from 'ava';
import fc from 'fast-check';
import { pack } from 'msgpackr';
import { MetadataState, type MetadataEvent } from '../../broker/metadata-state.ts';
import type { DecodedRecord } from '../../protocol/record-batch.ts';

const names = ['a', 'b.c', 'b-c', 'd_e', 'queue'];
const configs = fc
  .dictionary(fc.constantFrom('retention.ms', 'segment.bytes', 'cleanup.policy'), fc.string({ maxLength: 5 }))
  .map((values) => new Map(Object.entries(values)));

type Operation = {
  act: 'create' | 'delete' | 'add' | 'configure' | 'options' | 'group';
  pick: number;
  values: Map<string, string>;
};
const operations: fc.Arbitrary<Operation[]> = fc.array(
  fc.record({
    act: fc.constantFrom('create', 'delete', 'add', 'configure', 'options', 'group'),
    pick: fc.nat(20),
    values: configs,
  }),
  { maxLength: 60 },
);

/** An operation as the event a registry would write in this state; undefined if it would refuse. */
function eventFor(state: MetadataState, { act, pick, values }: Operation, sequence: number): MetadataEvent | undefined {
  const name = names[pick % names.length];
  const topic = state.get(name);
  switch (act) {
    case 'create':
      if (topic || state.collision(name) !== undefined) return undefined;
      return {
        kind: 'topicCreated',
        name,
        id: `id-${sequence}`,
        partitionCount: 1 + (pick % 4),
        isInternal: pick % 7 === 0,
        overrides: values,
      };
    case 'delete':
      return topic && { kind: 'topicDeleted', id: topic.id };
    case 'add':
      return topic && { kind: 'partitionsAdded', id: topic.id, partitionCount: topic.partitionCount + 1 };
    case 'configure':
      return topic && { kind: 'topicConfigured', id: topic.id, overrides: values };
    case 'options':
      return { kind: 'optionsChanged', scope: pick % 2 ? 'node' : 'cluster', values };
    case 'group':
      return { kind: 'groupConfigured', group: name, values };
  }
}

function view(state: MetadataState) {
  const byName = [...state.topics()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return {
    topics: byName.map((topic) => ({ ...topic, overrides: Object.fromEntries(topic.overrides) })),
    ids: byName.map(({ id }) => state.byId(id)?.name),
    collisions: names.map((name) => state.collision(name)),
    options: (['node', 'cluster'] as const).map((scope) => Object.fromEntries(state.dynamicOptions(scope))),
    groups: [...state.groupConfigs]
      .map(([group, values]) => [group, [...values]] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
    counts: [state.topicCount, state.partitionCount],
  };
}

function stored(state: MetadataState, event: MetadataEvent): MetadataEvent {
  const { key, value, timestamp } = state.encode(event, 1);
  const record: DecodedRecord = {
    offset: 0,
    timestamp,
    key: key && Buffer.from(key),
    value: value && Buffer.from(value),
    headers: [],
  };
  return state.decode(record);
}

test('a state read back from its events, or from its live ones, is the same', (t) => {
  fc.assert(
    fc.property(operations, (steps) => {
      const state = new MetadataState();
      const replayed = new MetadataState();
      let sequence = 0;
      for (const step of steps) {
        const event = eventFor(state, step, sequence++);
        if (!event) continue;
        state.apply(event);
        replayed.apply(stored(replayed, event));
      }
      const rewritten = new MetadataState();
      for (const event of state.live()) rewritten.apply(stored(rewritten, event));
      // A rewrite that a crash cut short leaves all events and some of the live ones.
      let left = steps.length % 4;
      for (const event of state.live()) if (left-- > 0) replayed.apply(stored(replayed, event));
      t.deepEqual(view(replayed), view(state));
      t.deepEqual(view(rewritten), view(state));
      // Counts are sums, whatever the way here.
      const topics = [...state.topics()];
      t.is(
        state.partitionCount,
        topics.reduce((sum, topic) => sum + topic.partitionCount, 0),
      );
    }),
    { numRuns: 300 },
  );
});

test('names that differ only in dots and underscores collide until the first one is gone', (t) => {
  const state = new MetadataState();
  state.apply({
    kind: 'topicCreated',
    name: 'a.b',
    id: '1',
    partitionCount: 1,
    isInternal: false,
    overrides: new Map(),
  });
  t.is(state.collision('a_b'), 'a.b');
  t.is(state.collision('a.b'), undefined);
  state.apply({ kind: 'topicDeleted', id: '1' });
  t.is(state.collision('a_b'), undefined);
});

test('an event of another version ends the start instead of being skipped', (t) => {
  const record = (value: unknown): DecodedRecord => ({
    offset: 7,
    timestamp: 0,
    key: null,
    value: value === undefined ? null : pack(value),
    headers: [],
  });
  for (const value of [[2, 'topicDeleted', 'x'], [1, 'somethingNew', 'x'], 'text', undefined])
    t.throws(() => new MetadataState().decode(record(value)), { code: 'DATA_DIR_FORMAT', message: /offset 7/ });
});
