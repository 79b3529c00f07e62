/**
 * Deliberately broken builds of the whole broker, as those of the log in `mutants.ts`: the checker of the simulation must
 * notice each. `npm run sim -- --mutants` tries all.
 */
import type { Mutant } from './mutants.ts';

export const brokerMutants: readonly Mutant[] = [
  {
    name: 'produce-answered-at-once',
    breaks: 'a produce request is answered when its position is durable',
    isBroker: true,
    changes: [
      {
        file: 'broker/kafka/produce.js',
        from: 'broker.engine.whenDurable(position, () => call.reply(response));',
        to: 'call.reply(response);',
      },
    ],
  },
  {
    name: 'commit-answered-at-once',
    breaks: 'a committed offset is durable when it is answered',
    isBroker: true,
    changes: [
      { file: 'broker/groups.js', from: 'this.#store.whenDurable(() => reply(errors));', to: 'reply(errors);' },
    ],
  },
  {
    name: 'topic-answered-at-once',
    breaks: 'a creation is durable when it is answered',
    isBroker: true,
    changes: [
      {
        file: 'broker/kafka/topic-admin.js',
        from: 'broker.topics.whenDurable(() => call.reply({ topics }));',
        to: 'call.reply({ topics });',
      },
    ],
  },
  {
    name: 'start-not-committed',
    breaks: 'deleted records stay deleted',
    isBroker: true,
    changes: [
      {
        file: 'storage/log-engine.js',
        from: "group.others.push({ kind: 'start', key: partition.key, offset });",
        to: '',
      },
    ],
  },
  {
    name: 'watermark-at-the-end',
    breaks: 'readers see nothing that is not durable',
    isBroker: true,
    changes: [
      {
        file: 'storage/partition-log.js',
        from: 'get highWatermark() { return this.#highWatermark; }',
        to: 'get highWatermark() { this.#highWatermark = this.#endOffset; return this.#endOffset; }',
      },
    ],
  },
  {
    name: 'duplicates-appended',
    breaks: 'a batch that is sent again is recognised',
    isBroker: true,
    changes: [
      {
        file: 'storage/producer-state.js',
        from: "return verdict === 'append' ? undefined : verdict.duplicateOf;",
        to: 'return undefined;',
      },
    ],
  },
  {
    name: 'deletion-forgets-partitions',
    breaks: 'a deleted topic and its partitions end in one commit',
    isBroker: true,
    changes: [
      {
        file: 'broker/topics.js',
        from: "this.#record([{ kind: 'topicDeleted', id: topic.id }], this.#isTransient(topic.id), others);",
        to: '',
      },
    ],
  },
  {
    name: 'generation-not-stored',
    breaks: 'members carry on with their generation after a restart',
    isBroker: true,
    changes: [
      {
        file: 'broker/group.js',
        from: "this.#host.log.commit([{ kind: 'group', group: this.id, value }]); const answers",
        to: 'const answers',
      },
    ],
  },
  {
    name: 'answers-out-of-order',
    breaks: 'answers leave in the order of their requests',
    isBroker: true,
    changes: [
      {
        file: 'broker/kafka/connection.js',
        from: 'while (done < this.#slots.length && this.#slots[done].isDone) {',
        to: 'this.#slots.sort((a, b) => Number(b.isDone) - Number(a.isDone)); while (done < this.#slots.length && this.#slots[done].isDone) {',
      },
    ],
  },
  {
    name: 'batches-not-kept',
    breaks: 'bytes of the shared read buffer are not used after the call',
    isBroker: true,
    changes: [
      { file: 'broker/kafka/produce.js', from: 'data.records = Buffer.from(data.records);', to: 'void data.records;' },
    ],
  },
  {
    name: 'waiters-not-withdrawn',
    breaks: 'a closed connection drops what waits for it',
    isBroker: true,
    changes: [
      {
        file: 'broker/kafka/fetch.js',
        from: 'for (const withdraw of withdrawals) withdraw();',
        to: 'void withdrawals;',
      },
    ],
  },
  {
    name: 'producer-ids-again',
    breaks: 'no two producers have the same id',
    isBroker: true,
    changes: [
      {
        file: 'broker/producers.js',
        from: 'this.#next = startEpoch * IDS_PER_EPOCH;',
        to: 'this.#next = IDS_PER_EPOCH;',
      },
    ],
  },
  {
    name: 'session-skips-news',
    breaks: 'a fetch session answers everything that is new',
    isBroker: true,
    changes: [
      {
        file: 'broker/kafka/fetch.js',
        from: 'if (this.#isIncremental && !hasNews) {',
        to: 'if (this.#isIncremental && (!hasNews || found.indexOf(one) > 0)) {',
      },
    ],
  },
];
