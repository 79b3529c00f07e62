/**
 * `QueueState` against its model, for a few thousand commands; `npm run model` does a million. And broken copies of the
 * state machine, which the model must notice.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { type QueueImplementation, runQueueModel } from './queue-model.ts';

test('random commands from many consumers are answered as the model answers them', (t) => {
  const { crashes } = runQueueModel({ seed: 1, commands: 6_000 });
  t.true(crashes > 20);
});

interface Mutant {
  readonly name: string;
  readonly file: string;
  /** White space may differ; must be there exactly once. */
  readonly from: string;
  readonly to: string;
}

const MUTANTS: readonly Mutant[] = [
  {
    name: 'a release loses the count',
    file: 'queue-state.js',
    from: 'const acquiredCount = flights.acquiredCount(row) + 1;',
    to: 'const acquiredCount = 1;',
  },
  {
    name: 'an expired lock settles',
    file: 'queue-state.js',
    from: '!== IN_FLIGHT || flights.untilMs(row) <= nowMs',
    to: '!== IN_FLIGHT',
  },
  {
    name: 'anybody settles',
    file: 'queue-state.js',
    from: "return owner === 'any' || flights.owner(row) === owner;",
    to: 'return true;',
  },
  {
    name: 'a settlement is half done when it is refused',
    file: 'queue-state.js',
    from: 'if (offender >= 0) {',
    to: 'if (offender >= 0 && count === 0) {',
  },
  {
    name: 'the group lock is forgotten at a restart',
    file: 'queue-order.js',
    from: 'else if (place === HELD) this.#regroup(entry, group, GONE, HELD);',
    to: '',
  },
  {
    name: 'a group hands out while it is held',
    file: 'queue-order.js',
    from: 'return this.#inFlight[group] > 0 && !(this.#isAcquiring',
    to: 'return this.#inFlight[group] > 99 && !(this.#isAcquiring',
  },
  {
    name: 'a delayed head does not hold its group',
    file: 'queue-order.js',
    from: 'this.#isHeadDelayed[group] = to === NOT_DUE ? 1 : 0;',
    to: 'this.#isHeadDelayed[group] = 0;',
  },
  {
    name: 'a noisy tenant is served like the others',
    file: 'queue-order.js',
    from: 'return own >= NOISY_MESSAGES &&',
    to: 'return own >= 1e9 &&',
  },
  {
    name: 'a released message goes to the end',
    file: 'queue-order.js',
    from: '|| this.#states.get(offset) === TRACKED) lane.heap.push(offset);',
    to: ') lane.heap.push(offset);',
  },
  {
    name: 'a delay ends at once',
    file: 'queue-state.js',
    from: 'if (untilMs > nowMs) {',
    to: 'if (untilMs > nowMs + 40) {',
  },
  {
    name: 'delayed messages are due too early',
    file: 'queue-delays.js',
    from: 'if (this.#heap.nextMs > nowMs)',
    to: 'if (this.#heap.nextMs > nowMs + 1)',
  },
  {
    name: 'an expired message is delivered',
    file: 'queue-state.js',
    from: 'if (hasExpiry && this.#expiresAtMs(offset) <= nowMs) {',
    to: 'if (hasExpiry && this.#expiresAtMs(offset) <= nowMs - 100) {',
  },
  {
    name: 'the delivery limit is one too high',
    file: 'attempt-limits.js',
    from: 'acquiredCount >= limit.max',
    to: 'acquiredCount > limit.max',
  },
  {
    name: 'what was leaving is forgotten in a crash',
    file: 'queue-state.js',
    from: 'this.#untakenCount++; this.#leavingOffsets.push(offset); break;',
    to: 'this.#untakenCount++; break;',
  },
  {
    name: 'a failed attempt is not written down',
    file: 'queue-state.js',
    from: 'isFailure ? CHANGE.returnedFailed : CHANGE.returned,',
    to: 'CHANGE.returned,',
  },
  {
    name: 'a deadline lock is given back at a restart',
    file: 'queue-image.js',
    from: 'restore(flights, row, IN_FLIGHT, change.detail, change.atMs);',
    to: 'restore(flights, row, READY, 0, NEVER);',
  },
  {
    name: 'a lock bound to a connection outlives a restart',
    file: 'queue-image.js',
    from: 'case CHANGE.acquiredBound: flights.setAcquiredCount(row, flights.acquiredCount(row) + 1); restore(flights, row, READY, 0, NEVER);',
    to: 'case CHANGE.acquiredBound: flights.setAcquiredCount(row, flights.acquiredCount(row) + 1); restore(flights, row, IN_FLIGHT, 0, NEVER);',
  },
  {
    name: 'a snapshot forgets counts',
    file: 'queue-image.js',
    from: 'flights.setAcquiredCount(row, change.acquiredCount);',
    to: '',
  },
  {
    name: 'a replay keeps the epoch',
    file: 'queue-epochs.js',
    from: 'return this.find(offset)?.epoch ?? this.#base;',
    to: 'return this.#base;',
  },
  {
    name: 'a purge takes what is in flight',
    file: 'queue-state.js',
    from: 'if (!takesInFlight) return false;',
    to: '',
  },
  {
    name: 'runs of changes run together',
    file: 'queue-changes.js',
    from: 'this.#kind === kind && this.#detail === detail',
    to: 'this.#kind === kind',
  },
  {
    name: 'the lowest priority comes first',
    file: 'queue-order.js',
    from: 'while (lanes[at].level > level)',
    to: 'while (lanes[at].level < level && at + 1 < lanes.length)',
  },
];

for (const mutant of MUTANTS) {
  test(`the model notices: ${mutant.name}`, async (t) => {
    const implementation = await broken(mutant);
    const notice = (): void => {
      for (let seed = 1; seed <= 20; seed++) runQueueModel({ seed, commands: 3_000, implementation });
    };
    t.throws(notice, { message: /^the queue differs from its model/ });
  });
}

const folders: string[] = [];
test.after.always(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A copy of the compiled state machine with one change. */
async function broken({ name, file, from, to }: Mutant): Promise<QueueImplementation> {
  const built = join(import.meta.dirname, '../..');
  const folder = mkdtempSync(join(tmpdir(), 'millrace-mutant-'));
  folders.push(folder);
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  cpSync(join(built, 'protocol/errors.js'), join(folder, 'protocol/errors.js'));
  for (const source of readdirSync(join(built, 'broker'))) {
    if (
      /^(queue-(state|image|order|changes|epochs|delays)|attempt-|flight-|deadline-b|message-|offset-|arrival-|attribute-|hand-out-).*\.js$/.test(
        source,
      )
    ) {
      cpSync(join(built, 'broker', source), join(folder, 'broker', source));
    }
  }
  const path = join(folder, 'broker', file);
  const text = readFileSync(path, 'utf8');
  const pattern = new RegExp(from.split(/\s+/).map(escapePattern).join('\\s+'), 'g');
  const places = text.match(pattern)?.length ?? 0;
  if (places !== 1) throw new Error(`${name}: the text to change is in ${file} ${places} times`);
  writeFileSync(
    path,
    text.replace(pattern, () => to),
  );
  const load = async (source: string): Promise<QueueImplementation> => {
    // The copy has the classes of the original.
    return (await import(pathToFileURL(join(folder, 'broker', source)).href)) as QueueImplementation;
  };
  const { QueueState } = await load('queue-state.js');
  const { AttributeIndex } = await load('attribute-index.js');
  return { QueueState, AttributeIndex };
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
