/**
 * The queue state machine at its limits: rates, memory, restart. By hand, a case a process so that memory is its own:
 *
 *     node --expose-gc dist/bench/micro/queue-state.js [CASE …]
 */
import { spawnSync } from 'node:child_process';
import { AttributeIndex } from '../../broker/attribute-index.ts';
import { DedupBudget, dedupHash, DedupWindow } from '../../broker/dedup.ts';
import type { AcquiredRun } from '../../broker/queue.ts';
import { DEFAULT_STATE_SETTINGS, QueueState, type QueueStateSettings } from '../../broker/queue-state.ts';

const MILLION = 1_000_000;
const GROUPS = 99_999;
const NEVER = Number.POSITIVE_INFINITY;
const NOW = 1_790_000_000_000;

const cases: Readonly<Record<string, () => void>> = {
  'plain-500': () => acquireAndSettle(500),
  'plain-10': () => acquireAndSettle(10),
  'plain-1': () => acquireAndSettle(1),
  'available-10m': available,
  'acked-10m': ackedInRandomOrder,
  'in-flight-1m': () => inFlight(false),
  'in-flight-1m-deadlines': () => inFlight(true),
  restart: restart,
  'backlog-plain': () => backlog('plain'),
  'backlog-groups': () => backlog('groups'),
  'backlog-one-group': () => backlog('one group'),
  'delays-day': delaysOverADay,
  'delays-at-once': delaysAtOnce,
  redeliver: redeliver,
  priority: priority,
  'release-1m': releaseAtOnce,
  'all-at-once': allAtOnce,
  'dedup-3m': dedup,
};

const chosen = process.argv.slice(2);
if (chosen.length === 1) cases[chosen[0]]();
else {
  for (const name of chosen.length === 0 ? Object.keys(cases) : chosen) {
    spawnSync(process.execPath, ['--expose-gc', import.meta.filename, name], { stdio: 'inherit' });
  }
}

// ------------------------------------------------------------------ rates

function acquireAndSettle(portion: number): void {
  const state = newState({});
  const total = 4 * MILLION;
  state.extend(total, NOW, NOW);
  turnover(state, portion, MILLION);
  const ns = timed(() => turnover(state, portion, 3 * MILLION)) / 3;
  report(`acquire and settle, ${portion} at a time`, { 'messages/s': 1e9 / ns, 'ns a message': ns });
}

/** Acquires and accepts; changes are taken every 500 messages, as a turn of the registry would. */
function turnover(state: QueueState, portion: number, count: number): void {
  let untaken = 0;
  for (let done = 0; done < count; ) {
    const runs = acquire(state, 1, portion);
    if (runs.length === 0) return;
    const taken = countOf(runs);
    state.settle(1, runs.map(accept), NOW);
    done += taken;
    untaken += taken;
    if (untaken < 500) continue;
    state.takeChanges();
    untaken = 0;
  }
}

function redeliver(): void {
  const state = newState({});
  state.extend(MILLION, NOW, NOW);
  const order = shuffled(MILLION, 3);
  acquire(state, 1, MILLION);
  const releaseNs = timed(() => {
    for (let at = 0; at < MILLION; at += 100) {
      const settlements = [];
      for (let i = at; i < at + 100; i++) {
        settlements.push({ firstOffset: order[i], lastOffset: order[i], kind: 'release' as const });
      }
      state.settle(1, settlements, NOW);
      state.takeChanges();
    }
  });
  const againNs = timed(() => turnover(state, 100, MILLION));
  report('1 million released in random order, then handed out again', {
    'releases/s': 1e9 / releaseNs,
    'acquire+settle/s': 1e9 / againNs,
  });
}

/** A queue with a backlog against one that is almost empty, both with the same settings and the same work. */
function backlog(kind: 'plain' | 'groups' | 'one group'): void {
  const isOrdered = kind !== 'plain';
  const sizes = [1_000, MILLION];
  const rates: number[][] = [[], []];
  const restarted: number[][] = [[], []];
  // The first rounds compile; then a restart is measured with what it has to pass over again.
  for (let round = 0; round < 7; round++) {
    for (const [index, size] of sizes.entries()) {
      const world = backlogWorld(kind, size, isOrdered);
      work(world, 20_000);
      const ns = timed(() => work(world, 200_000)) / 0.2;
      const again = restartedWorld(world);
      const againNs = timed(() => work(again, 200_000)) / 0.2;
      if (round < 2) continue;
      rates[index].push(1e9 / ns);
      restarted[index].push(1e9 / againNs);
    }
  }
  const [empty, full] = rates.map(median);
  const [emptyAgain, fullAgain] = restarted.map(median);
  report(`backlog of 1 million, ${kind}`, {
    'almost empty/s': empty,
    'backlog/s': full,
    ratio: full / empty,
    'right after a restart: almost empty/s': emptyAgain,
    'backlog /s': fullAgain,
    'ratio ': fullAgain / emptyAgain,
  });
}

interface World {
  state: QueueState;
  attributes: AttributeIndex;
  readonly kind: string;
  readonly size: number;
  random: number;
  end: number;
  changes: Buffer[];
}

function backlogWorld(kind: string, size: number, isOrdered: boolean): World {
  const attributes = new AttributeIndex();
  const state = newState({ isOrdered }, attributes);
  const world: World = { state, attributes, kind, size, random: 1, end: 0, changes: [] };
  append(world, size);
  if (kind === 'groups') holdAThird(state);
  if (kind === 'one group') {
    // Its first message is in flight for good: all the rest of it is passed over.
    state.acquire({ ...acquireOptions(9, 1), isBoundToConnection: false });
  }
  world.changes.push(...state.snapshot());
  return world;
}

/** The first message of every third group stays in flight for somebody who does not settle. */
function holdAThird(state: QueueState): void {
  const messagesMax = Math.min(GROUPS, state.endOffset);
  // Such locks outlive the restart.
  const runs = state.acquire({ ...acquireOptions(9, messagesMax), isBoundToConnection: false });
  const settlements = [];
  for (const { firstOffset, lastOffset } of runs) {
    for (let offset = firstOffset; offset <= lastOffset; offset++) {
      if (offset % 3 !== 0) settlements.push({ firstOffset: offset, lastOffset: offset, kind: 'undo' as const });
    }
  }
  state.settle(9, settlements, NOW);
}

function append(world: World, count: number): void {
  const { attributes, kind, size } = world;
  for (let i = 0; i < count; i++) {
    const offset = world.end++;
    if (kind === 'groups') {
      // What comes later is for groups that are not held: in an almost empty queue the others would pile up.
      const group = offset % GROUPS;
      attributes.append(offset, grouped(`group-${offset >= size && group % 3 === 0 ? group + 1 : group}`));
    }
    // 216,000 of the first million in one group, one after the other; the others have none.
    if (kind === 'one group' && offset < (size * 216) / 1000) attributes.append(offset, grouped('the group'));
  }
  world.state.extend(world.end, NOW, NOW);
}

/** Takes ten at a time; nine of ten are accepted, the others released; what was accepted is appended anew. */
function work(world: World, count: number): void {
  const { state } = world;
  for (let done = 0; done < count; ) {
    const runs = acquire(state, 1, 10);
    if (runs.length === 0) throw new Error(`nothing to acquire: ${JSON.stringify(state.counts)}`);
    const settlements = [];
    let accepted = 0;
    for (const { firstOffset, lastOffset } of runs) {
      for (let offset = firstOffset; offset <= lastOffset; offset++) {
        world.random = (Math.imul(world.random, 1_664_525) + 1_013_904_223) >>> 0;
        const isReleased = world.random < 429_496_729;
        settlements.push({
          firstOffset: offset,
          lastOffset: offset,
          kind: isReleased ? ('release' as const) : ('accept' as const),
          isFailure: false,
        });
        if (!isReleased) accepted++;
        done++;
      }
    }
    state.settle(1, settlements, NOW);
    state.takeChanges();
    append(world, accepted);
  }
}

function restartedWorld(world: World): World {
  const pieces = [...world.state.snapshot()];
  const state = newState(world.state.settings, world.attributes);
  for (const piece of pieces) state.applyChanges(piece);
  state.extend(world.end, NOW, NOW);
  return { ...world, state };
}

function priority(): void {
  const attributes = new AttributeIndex();
  const state = newState({ priorityMax: 10 }, attributes);
  for (let offset = 0; offset < MILLION; offset++) {
    attributes.append(offset, { ...grouped(undefined), priority: (offset * 7) % 10 });
  }
  state.extend(MILLION, NOW, NOW);
  turnover(state, 10, 100_000);
  const ns = timed(() => turnover(state, 10, 800_000)) / 0.8;
  report('10 priorities, backlog of 1 million, 10 at a time', { 'acquire+settle/s': 1e9 / ns });
}

// ------------------------------------------------------------------ memory and restart

function available(): void {
  const before = memory();
  const state = newState({});
  state.extend(10 * MILLION, NOW, NOW);
  const bytes = memory() - before;
  report('10 million available', {
    MB: bytes / 1e6,
    'acquire+settle/s': 1e9 / timed(() => turnover(state, 100, MILLION)),
  });
}

function ackedInRandomOrder(): void {
  // A million in flight at a time, settled one by one in random order; one of a thousand stays, so that nothing vanishes.
  const total = 10 * MILLION;
  const order = shuffled(MILLION, 1);
  const before = memory();
  const state = newState({});
  state.extend(total, NOW, NOW);
  let peak = 0;
  const ns = timed(() => {
    for (let base = 0; base < total; base += MILLION) {
      acquire(state, 1, MILLION);
      peak = Math.max(peak, memory() - before);
      for (let i = 0; i < MILLION; i++) {
        const offset = base + order[i];
        if (offset % 1000 !== 0) state.settle(1, [{ firstOffset: offset, lastOffset: offset, kind: 'accept' }], NOW);
        if (i % 1000 === 0) state.takeChanges();
      }
    }
  });
  const bytes = memory() - before;
  if (state.counts.inFlight !== 10_000) throw new Error(`left: ${JSON.stringify(state.counts)}`);
  report('10 million acknowledged one by one in random order, 1 million in flight at a time', {
    'MB at most': peak / 1e6,
    'MB at the end': bytes / 1e6,
    'acquire+settle/s': (1e9 / ns) * 10,
  });
}

function inFlight(hasDeadline: boolean): void {
  const before = memory();
  const state = newState({});
  state.extend(MILLION, NOW, NOW);
  for (let i = 0; i < 100_000; i++) {
    const lockedUntilMs = hasDeadline ? NOW + 30_000 + i : NEVER;
    state.acquire({ ...acquireOptions(1 + (i % 1000), 10), lockedUntilMs, isBoundToConnection: !hasDeadline });
    if (i % 50 === 0) state.takeChanges();
  }
  const bytes = memory() - before;
  const what = hasDeadline ? 'a deadline for each acquisition of 10' : 'no deadline';
  report(`1 million in flight, ${what}`, { 'bytes a message': bytes / state.counts.inFlight });
}

function restart(): void {
  const order = shuffled(10 * MILLION, 1);
  const state = newState({});
  state.extend(10 * MILLION, NOW, NOW);
  for (let i = 0; i < 1000; i++) {
    state.acquire({ ...acquireOptions(1 + i, 10_000), lockedUntilMs: NOW + 30_000 + i, isBoundToConnection: false });
  }
  // A tenth stays in flight, spread over all.
  for (let i = 0; i < 9 * MILLION; i++) {
    const offset = order[i];
    if (offset !== 0) state.settle('any', [{ firstOffset: offset, lastOffset: offset, kind: 'accept' }], NOW);
    if (i % 1000 === 0) state.takeChanges();
  }
  let pieces: Buffer[] = [];
  const writeNs = timed(() => {
    pieces = [...state.snapshot()];
  });
  const recovered = newState({});
  const readNs = timed(() => {
    for (const piece of pieces) recovered.applyChanges(piece);
    recovered.extend(10 * MILLION, NOW, NOW);
  });
  if (recovered.counts.inFlight !== state.counts.inFlight) throw new Error('not the same');
  report('restart: 9 of 10 million acknowledged in random order, 1 million in flight', {
    'snapshot ms': writeNs * 1e-6 * MILLION,
    'snapshot MB': pieces.reduce((sum, piece) => sum + piece.length, 0) / 1e6,
    'largest piece KiB': Math.max(...pieces.map((piece) => piece.length)) / 1024,
    'apply and extend ms': readNs * 1e-6 * MILLION,
  });
}

// ------------------------------------------------------------------ delays

function delaysOverADay(): void {
  const before = memory();
  const attributes = new AttributeIndex();
  const order = shuffled(MILLION, 5);
  const indexBefore = memory();
  for (let offset = 0; offset < MILLION; offset++) {
    attributes.append(offset, { ...grouped(undefined), notBeforeMs: NOW + 1 + Math.floor(order[offset] * 86.4) });
  }
  const indexBytes = memory() - indexBefore;
  const state = newState({}, attributes);
  const stateBefore = memory();
  state.extend(MILLION, NOW, NOW);
  const stateBytes = memory() - stateBefore;
  let now = NOW;
  let longest = 0;
  let received = 0;
  const ns = timed(() => {
    while (received < MILLION) {
      now = Math.max(now + 1000, state.nextDeadlineMs);
      const started = process.hrtime.bigint();
      state.advance(now);
      longest = Math.max(longest, Number(process.hrtime.bigint() - started));
      const runs = acquire(state, 1, 1000, now);
      received += countOf(runs);
      state.settle(1, runs.map(accept), now);
      state.takeChanges();
    }
  });
  if (state.startOffset !== MILLION) throw new Error(`left: ${JSON.stringify(state.counts)}`);
  report('1 million delays over a day', {
    'index bytes a message': indexBytes / MILLION,
    'state bytes a message': stateBytes / MILLION,
    'messages/s': 1e9 / ns,
    'longest advance ms': longest / 1e6,
    'MB at the end': (memory() - before) / 1e6,
  });
}

function delaysAtOnce(): void {
  const attributes = new AttributeIndex();
  const state = newState({}, attributes);
  for (let offset = 0; offset < MILLION; offset++) {
    attributes.append(offset, { ...grouped(undefined), notBeforeMs: NOW + 60_000 + ((offset * 7919) % 1000) });
  }
  state.extend(MILLION, NOW, NOW);
  let longest = 0;
  let calls = 0;
  const now = NOW + 61_000;
  const dueNs = timed(() => {
    for (let isMore = true; isMore; calls++) {
      const started = process.hrtime.bigint();
      isMore = state.advance(now);
      longest = Math.max(longest, Number(process.hrtime.bigint() - started));
    }
  });
  const ns = timed(() => turnover(state, 100, MILLION));
  report('1 million due in the same second', {
    'due/s': 1e9 / dueNs,
    calls,
    'longest call ms': longest / 1e6,
    'then acquire+settle/s': 1e9 / ns,
  });
}

// ------------------------------------------------------------------ all at once

/** A consumer that holds a million goes: how long a slice takes, and all of it. */
function releaseAtOnce(): void {
  const state = newState({});
  state.extend(MILLION, NOW, NOW);
  for (let taken = 0; taken < MILLION; taken += 1000) {
    acquire(state, 1, 1000);
    state.takeChanges();
  }
  let longest = 0;
  const ns = timed(() => {
    while (state.heldBy(1) > 0) {
      longest = Math.max(
        longest,
        elapsedMs(() => state.releaseOwner(1, NOW, { isFailure: true, messagesMax: 10_000 })),
      );
      state.takeChanges();
    }
  });
  report('1 million given back 10,000 at a time', { 'longest slice ms': longest, 'messages/s': 1e9 / ns });
}

/** What is done to a whole backlog of a million in one go. */
function allAtOnce(): void {
  for (const kind of ['plain', 'groups'] as const) {
    const { state } = backlogWorld(kind, MILLION, kind === 'groups');
    const configureMs = elapsedMs(() => state.configure({ ...state.settings, delayMs: 5 }, NOW));
    const priorityMs = elapsedMs(() => state.configure({ ...state.settings, priorityMax: 5 }, NOW));
    const purgeMs = elapsedMs(() => state.purge({ takeInFlight: false }));
    const replayMs = elapsedMs(() => state.replay(0, MILLION, NOW));
    const figures = { 'purge ms': purgeMs, 'replay ms': replayMs, 'configure ms': configureMs };
    report(`1 million at once, ${kind}`, { ...figures, 'configure priorities ms': priorityMs });
  }
  const attributes = new AttributeIndex();
  const state = newState({}, attributes);
  for (let offset = 0; offset < MILLION; offset++) {
    attributes.append(offset, { ...grouped(undefined), notBeforeMs: NOW + 60_000 + ((offset * 7919) % 86_400_000) });
  }
  const extendMs = elapsedMs(() => state.extend(MILLION, NOW, NOW));
  const purgeMs = elapsedMs(() => {
    state.purge({ takeInFlight: false });
    if (state.nextDeadlineMs !== NEVER) throw new Error('something is delayed');
  });
  report('1 million delayed', { 'extend ms': extendMs, 'purge ms': purgeMs });
}

function dedup(): void {
  const window = new DedupWindow({ windowMs: 3_600_000, budget: new DedupBudget(1e9) });
  const ids = 3 * MILLION;
  // The heap of a broker that has worked is not that of one that has just begun.
  for (let offset = 0; offset < MILLION; offset++) window.find(dedupHash(`other-${offset}`), NOW);
  window.add(dedupHash('first'), { partition: 0, offset: 0, timeMs: NOW });
  memory();
  const before = process.memoryUsage.rss();
  const ns = timed(() => {
    for (let offset = 1; offset < ids; offset++) {
      const hash = dedupHash(`message-${offset}`);
      const timeMs = NOW + Math.floor(offset / 1000);
      if (window.find(hash, timeMs) === undefined) window.add(hash, { partition: 0, offset, timeMs });
      if (offset % 1000 === 0) window.takeChanges(() => offset);
    }
  });
  memory();
  const rss = process.memoryUsage.rss() - before;
  report('3 million ids', { 'RSS MB': rss / 1e6, 'bytes an id': window.sizeBytes / ids, 'ids/s': 3e9 / ns });
}

// ------------------------------------------------------------------ parts

function newState(settings: Partial<QueueStateSettings>, attributes = new AttributeIndex()): QueueState {
  return new QueueState({ startOffset: 0, settings: { ...DEFAULT_STATE_SETTINGS, ...settings }, attributes });
}

function acquireOptions(owner: number, messagesMax: number, nowMs = NOW) {
  return { owner, door: 'amqp' as const, messagesMax, lockedUntilMs: NEVER, isBoundToConnection: true, nowMs };
}

function acquire(state: QueueState, owner: number, messagesMax: number, nowMs = NOW): AcquiredRun[] {
  return state.acquire(acquireOptions(owner, messagesMax, nowMs));
}

function accept({ firstOffset, lastOffset }: AcquiredRun) {
  return { firstOffset, lastOffset, kind: 'accept' as const };
}

function grouped(group: string | undefined) {
  return { priority: 0, notBeforeMs: 0, expiresAtMs: NEVER, group, dedupId: undefined };
}

function countOf(runs: readonly AcquiredRun[]): number {
  let count = 0;
  for (const { firstOffset, lastOffset } of runs) count += lastOffset - firstOffset + 1;
  return count;
}

function shuffled(count: number, seed: number): Uint32Array {
  const order = new Uint32Array(count);
  let random = seed;
  for (let i = 0; i < count; i++) {
    random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
    const other = Math.floor((random / 2 ** 32) * (i + 1));
    order[i] = order[other];
    order[other] = i;
  }
  return order;
}

/** Nanoseconds of processor time for a million, if `run` does a million. */
function timed(run: () => void): number {
  const before = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(before);
  return ((user + system) * 1000) / MILLION;
}

function memory(): number {
  globalThis.gc?.();
  globalThis.gc?.();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

function elapsedMs(run: () => void): number {
  const from = process.hrtime.bigint();
  run();
  return Number(process.hrtime.bigint() - from) / 1e6;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function report(name: string, figures: Readonly<Record<string, number>>): void {
  const texts = Object.entries(figures).map(([what, value]) => {
    const text = value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
    return `${what} ${text}`;
  });
  console.log(`${name}: ${texts.join(', ')}`);
}
