/** Deliberately broken builds of queues, as those of the log in `mutants.ts`: the checker of `queue-run.ts` must notice each. */
import type { Mutant } from './mutants.ts';

export const queueMutants: readonly Mutant[] = [
  {
    name: 'settlement-answered-at-once',
    breaks: 'a settlement is durable when it is answered',
    isQueues: true,
    changes: [
      {
        file: 'broker/queue-serving.js',
        from: 'whenDurable(callback) {',
        to: 'whenDurable(callback) { if (callback.length === 0) return callback();',
      },
    ],
  },
  {
    name: 'dead-letter-in-two-commits',
    breaks: 'a dead letter is moved in one piece',
    isQueues: true,
    changes: [
      {
        file: 'broker/queue-serving.js',
        from: "change(); this.#commit('waited', others);",
        to: "change(); this.#commit('waited', []); this.#parts.clock.after(3, () => this.#parts.engine.commit(others, 'waited'));",
      },
    ],
  },
  {
    name: 'attempts-lost',
    breaks: 'attempts are counted over restarts',
    isQueues: true,
    changes: [
      {
        file: 'broker/queue-image.js',
        from: 'case CHANGE.acquired: flights.setAcquiredCount(row, flights.acquiredCount(row) + 1);',
        to: 'case CHANGE.acquired: flights.setAcquiredCount(row, 1);',
      },
    ],
  },
  {
    name: 'delays-not-read',
    breaks: 'what records say is read from the log at a start',
    isQueues: true,
    changes: [
      {
        file: 'broker/queue-lane.js',
        from: 'this.#append(baseOffset, entries); this.#indexedEnd = lastOffset + 1; const',
        to: 'this.#indexedEnd = lastOffset + 1; const',
      },
    ],
  },
  {
    name: 'kept-delays-not-read',
    breaks: 'what was kept of records is read from its files at a start',
    isQueues: true,
    changes: [{ file: 'broker/queue-lane.js', from: 'content.addTo(this.attributes, at, next);', to: '' }],
  },
  {
    name: 'delays-far-off-forgotten',
    breaks: 'delays that end in a while are looked for in time',
    isQueues: true,
    changes: [
      { file: 'broker/queue-delays.js', from: 'if (farMs >= heap.nextMs) return', to: 'if (farMs >= 0) return' },
    ],
  },
  {
    name: 'ids-not-read',
    breaks: 'ids that were not written down are read from the log at a start',
    isQueues: true,
    changes: [
      {
        file: 'broker/queue-dedup.js',
        from: 'applyChanges(bytes) {',
        to: 'applyChanges(bytes) { if (bytes.length > 0) return;',
      },
      { file: 'broker/queues.js', from: 'lane.reach(covered);', to: ';' },
    ],
  },
  {
    name: 'redelivery-forgotten',
    breaks: 'what was handed out before a crash is told to be redelivered',
    isQueues: true,
    seeds: '41..200',
    changes: [
      {
        file: 'broker/queue-image.js',
        from: 'case CHANGE.mark: image.markOffset = offset;',
        to: 'case CHANGE.mark:',
      },
    ],
  },
  {
    name: 'handed-out-beyond-the-mark',
    breaks: 'what leaves before it is durable is below a durable mark',
    isQueues: true,
    changes: [
      {
        file: 'broker/hand-out-mark.js',
        from: 'const isCovered = lastOffset < this.#durableOffset;',
        to: 'const isCovered = true;',
      },
    ],
  },
  {
    name: 'lock-answered-at-once',
    breaks: 'a lock that outlives its connection is durable when it is answered',
    isQueues: true,
    changes: [{ file: 'broker/queue-serving.js', from: '!consumer.isBoundToConnection || runs', to: 'runs' }],
  },
  {
    name: 'changes-forgotten',
    breaks: 'what changed in a turn is in its commit',
    isQueues: true,
    changes: [
      {
        file: 'broker/queue-serving.js',
        from: 'this.#changed.add(partition); this.#dirty.add(partition.entry); this.wake(partition);',
        to: 'this.#changed.add(partition); if (partition.state.counts.ready === 0) this.#dirty.add(partition.entry); this.wake(partition);',
      },
    ],
  },
  {
    name: 'dead-letter-to-one-queue',
    breaks: 'a dead letter goes to all queues that its exchange knows',
    isQueues: true,
    isAmqp: true,
    changes: [
      {
        file: 'broker/dead-letters.js',
        from: 'targets.push(partition);',
        to: 'if (targets.length === 0) targets.push(partition);',
      },
    ],
  },
  {
    name: 'transaction-in-two-commits',
    breaks: 'a transaction happens whole or not at all',
    isQueues: true,
    isAmqp: true,
    seeds: '1..120',
    changes: [
      {
        file: 'broker/queues.js',
        from: 'intake.begins(partition, pending, baseOffset); }); change();',
        to: 'intake.begins(partition, pending, baseOffset); }); this.#parts.clock.after(3, change);',
      },
    ],
  },
];
