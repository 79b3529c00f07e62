import test from 'ava';
import { type LoggedState, type LogEntry, QueueLog } from '../../broker/queue-log.ts';
import { MemoryEngine } from '../support/memory-engine.ts';
import { SimClock } from '../support/sim-clock.ts';

/** Numbers by name; its snapshot comes in pieces of one number, and a change adds. */
class Numbers implements LoggedState {
  readonly values = new Map<string, number>();
  #changes: [string, number][] = [];

  add(name: string, amount: number): void {
    this.values.set(name, (this.values.get(name) ?? 0) + amount);
    this.#changes.push([name, amount]);
  }
  takeChanges(): Buffer | undefined {
    const changes = this.#changes;
    this.#changes = [];
    return changes.length === 0 ? undefined : Buffer.from(JSON.stringify({ changes, padding: 'x'.repeat(2000) }));
  }
  applyChanges(bytes: Buffer): void {
    const { changes, isReset } = JSON.parse(bytes.toString()) as { changes: [string, number][]; isReset?: boolean };
    if (isReset === true) this.values.clear();
    for (const [name, amount] of changes) this.values.set(name, (this.values.get(name) ?? 0) + amount);
  }
  *snapshot(): Iterable<Buffer> {
    this.#changes = [];
    let isReset = true;
    for (const change of this.values) {
      yield Buffer.from(JSON.stringify({ changes: [change], isReset, padding: 'x'.repeat(3000) }));
      isReset = false;
    }
    if (isReset) yield Buffer.from(JSON.stringify({ changes: [], isReset }));
  }
}

const clock = new SimClock();
const keyOf = (partition: number) => ({ group: 'g', topicId: 't', partition });

async function open(engine: MemoryEngine, isThere = true): Promise<QueueLog<Numbers>> {
  const log = new QueueLog<Numbers>({
    engine,
    clock,
    entryBytes: 64 * 1024,
    open: () => (isThere ? new Numbers() : undefined),
  });
  await log.load();
  return log;
}

function make(log: QueueLog<Numbers>, partition: number): LogEntry<Numbers> {
  const key = keyOf(partition);
  const entry = { id: log.newId(), key, startOffset: 0, state: new Numbers() };
  log.add(entry);
  log.commit([{ kind: 'opened', id: entry.id, key, startOffset: 0 }], [], { urgency: 'waited' });
  return entry;
}

const valuesOf = (log: QueueLog<Numbers>) => [...log.entries()].map(({ state }) => [...state.values]);

test('states come back as they were, also after their log was rewritten many times', async (t) => {
  const engine = new MemoryEngine();
  const log = await open(engine);
  const entries = [make(log, 0), make(log, 1)];
  for (let round = 0; round < 200; round++) {
    entries[round % 2].state.add(`n${round % 7}`, round);
    log.commit([], entries, { urgency: 'waited' });
  }
  t.deepEqual(valuesOf(await open(engine.restart())), valuesOf(log));
});

test('wherever a crash cuts the log, also in the middle of a rewrite, each state is one that it was', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const log = await open(engine);
  const entry = make(log, 0);
  const states = new Set<string>(['[]', '[[]]']);
  for (let round = 0; round < 60; round++) {
    entry.state.add(`n${round % 30}`, 1);
    states.add(JSON.stringify(valuesOf(log)));
    log.commit([], [entry], { urgency: 'waited' });
    for (let position = engine.durablePosition; position < engine.lastPosition; position++) {
      engine.sync(position + 1);
      t.true(states.has(JSON.stringify(valuesOf(await open(engine.restart())))), `round ${round}`);
    }
  }
});

test('changes too large for one commit count together', async (t) => {
  const engine = new MemoryEngine({ durability: 'manual' });
  const log = await open(engine);
  const entry = make(log, 0);
  engine.sync();
  for (let index = 0; index < 40; index++) entry.state.add(`long name ${'x'.repeat(1500)} ${index}`, 1);
  log.commit([], [entry], { urgency: 'waited' });
  const sizes = new Set<number>();
  for (let position = engine.durablePosition; position <= engine.lastPosition; position++) {
    engine.sync(position);
    const [state] = [...(await open(engine.restart())).entries()];
    sizes.add(state.state.values.size);
  }
  t.deepEqual([...sizes], [0, 40]);
});

test('the state of a topic that is gone is dropped', async (t) => {
  const engine = new MemoryEngine();
  const log = await open(engine);
  make(log, 0).state.add('a', 1);
  const without = engine.restart();
  t.deepEqual(valuesOf(await open(without, false)), []);
  t.deepEqual(valuesOf(await open(without.restart())), []);
});
