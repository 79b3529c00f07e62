/**
 * Random commands from many consumers against `QueueState` and against the naive `QueueOracle`: every answer and every
 * count must be the same. Settings are drawn at random and change while it runs; the durable form is taken at random
 * points, and now and then the broker "crashes": a fresh state is built from what was taken.
 *
 *     npm run build && node dist/test/model/queue-model.js --commands 1000000 --seed 1
 */
import { isDeepStrictEqual, parseArgs } from 'node:util';
import { AttributeIndex } from '../../broker/attribute-index.ts';
import type { AcquiredRun, MessageAttributes, QueueDoor, Settlement, SettleKind } from '../../broker/queue.ts';
import { type AttemptLimit, QueueState, type QueueStateSettings } from '../../broker/queue-state.ts';
import { SimRandom } from '../support/sim-random.ts';
import { QueueOracle } from './queue-oracle.ts';

/** The classes under test, so that broken copies can take their place. */
export interface QueueImplementation {
  readonly QueueState: typeof QueueState;
  readonly AttributeIndex: typeof AttributeIndex;
}

export interface QueueModelOptions {
  readonly seed: number;
  readonly commands: number;
  readonly implementation?: QueueImplementation;
  /** Called for each episode. */
  readonly onEpisode?: (settings: QueueStateSettings) => void;
}

const DOORS: readonly QueueDoor[] = ['kafka', 'amqp', 'sqs'];
const KINDS: readonly SettleKind[] = [
  'accept',
  'accept',
  'accept',
  'release',
  'release',
  'reject',
  'renew',
  'gap',
  'undo',
];
const EPISODE_COMMANDS = 1500;
const LIVE_MAX = 160;

/** Throws on the first difference; its message says how to see it again. Answers how many messages went through. */
export function runQueueModel({
  seed,
  commands,
  implementation = { QueueState, AttributeIndex },
  onEpisode,
}: QueueModelOptions): { messages: number; crashes: number } {
  const random = new SimRandom(seed);
  let messages = 0;
  let crashes = 0;
  for (let done = 0; done < commands; done += EPISODE_COMMANDS) {
    const episode = new Episode(random.fork(), implementation);
    onEpisode?.(episode.settings);
    for (let step = 0; step < Math.min(EPISODE_COMMANDS, commands - done); step++) {
      try {
        episode.step();
      } catch (error) {
        const where = `seed ${seed}, command ${done + step} (${episode.last}), settings ${JSON.stringify(episode.settings)}`;
        throw new Error(`the queue differs from its model: ${where}`, { cause: error });
      }
    }
    messages += episode.messageCount;
    crashes += episode.crashCount;
  }
  return { messages, crashes };
}

function drawSettings(random: SimRandom): QueueStateSettings {
  const limits: AttemptLimit[] = [];
  if (random.chance(0.3)) limits.push({ door: 'kafka', counter: 'acquired', max: random.between(1, 5) });
  if (random.chance(0.3)) limits.push({ door: 'amqp', counter: 'failed', max: random.between(0, 4) });
  if (random.chance(0.3)) limits.push({ door: 'sqs', counter: 'acquired', max: random.between(1, 5) });
  return {
    isOrdered: random.chance(0.4),
    isFair: random.chance(0.35),
    priorityMax: random.chance(0.3) ? random.pick([1, 5, 255]) : 0,
    ttlMs: random.chance(0.3) ? random.between(0, 300) : -1,
    delayMs: random.chance(0.25) ? random.between(1, 60) : 0,
    limits,
    lookaheadMax: random.pick([1_000_000, 1_000_000, 4, 20]),
    delayMemoryMs: random.pick([0, 20, 80, 600_000]),
  };
}

class Episode {
  settings: QueueStateSettings;
  last = '';
  messageCount = 0;
  crashCount = 0;
  readonly #random: SimRandom;
  readonly #implementation: QueueImplementation;
  readonly #base: number;
  readonly #groupCount: number;
  /** How often a message says something of itself. */
  readonly #attributed: number;
  #now: number;
  #attributes: AttributeIndex;
  #state: QueueState;
  #oracle: QueueOracle;
  /** Position of what is on the disk. */
  #position = 0;
  /** Offsets that may have been handed out before that was durable; of those, before a crash. */
  readonly #handedOut = new Set<number>();
  readonly #handedOutBefore = new Set<number>();
  /** What is on the disk, and the model as it was when the last piece of that was taken. */
  #durable: Buffer[] = [];
  #saved: QueueOracle;
  #logStart: number;
  /** The index knows nothing of what is below. */
  #indexStart: number;
  readonly #batches: { readonly endOffset: number; readonly appendedMs: number }[] = [];
  readonly #commands: readonly (readonly [number, string, () => void])[];
  readonly #weight: number;

  constructor(random: SimRandom, implementation: QueueImplementation) {
    this.#random = random;
    this.#implementation = implementation;
    this.#now = random.pick([0, 1_000, 1_790_000_000_000]);
    this.#base = random.pick([0, 5, 16_380, 32_768, 2 ** 32 - 20, 2 ** 40 + 3]);
    this.#groupCount = random.between(1, 6);
    this.#attributed = random.pick([0, 0.1, 0.1, 0.4]);
    this.settings = drawSettings(random);
    this.#attributes = new implementation.AttributeIndex();
    this.#state = this.#newState();
    this.#oracle = new QueueOracle(this.#base, this.settings);
    this.#saved = this.#oracle.clone();
    this.#logStart = this.#base;
    this.#indexStart = this.#base;
    this.#commands = [
      [20, 'append', () => this.#append()],
      [24, 'acquire', () => this.#acquire()],
      [26, 'settle', () => this.#settle()],
      [3, 'settle what is not held', () => this.#settleAnything()],
      [2, 'release owner', () => this.#releaseOwner()],
      [12, 'advance', () => this.#advance()],
      [6, 'leave', () => this.#leave()],
      [1, 'drop oldest', () => this.#dropOldest()],
      [1, 'discard', () => this.#discard()],
      [0.5, 'purge', () => this.#purge()],
      [1, 'replay', () => this.#replay()],
      [0.2, 'reset', () => this.#reset()],
      [1, 'trim', () => this.#trim()],
      [0.5, 'configure', () => this.#configure()],
      [8, 'take changes', () => this.#takeChanges()],
      [0.5, 'snapshot', () => this.#snapshot()],
      [1, 'crash', () => this.#crash()],
    ];
    this.#weight = this.#commands.reduce((sum, [weight]) => sum + weight, 0);
  }

  #newState(): QueueState {
    const { QueueState } = this.#implementation;
    return new QueueState({ startOffset: this.#base, settings: this.settings, attributes: this.#attributes });
  }

  step(): void {
    const random = this.#random;
    this.#now += random.chance(0.03) ? random.between(20, 150) : random.below(4);
    if (random.chance(0.005)) this.#now = Math.max(0, this.#now - random.between(1, 30));
    let at = (random.uint32() / 2 ** 32) * this.#weight;
    for (const [weight, name, run] of this.#commands) {
      at -= weight;
      if (at >= 0) continue;
      this.last = name;
      run();
      break;
    }
    this.#compare();
  }

  #compare(): void {
    const state = this.#state;
    const oracle = this.#oracle;
    const random = this.#random;
    same('start', state.startOffset, oracle.start);
    same('end', state.endOffset, oracle.end);
    same('counts', state.counts, oracle.counts());
    same('leaving', { all: state.leavingCount, untaken: state.untakenLeavingCount }, oracle.leavingCounts());
    same('search pending', state.isSearchPending, oracle.isSearchPending);
    if (random.chance(0.3)) same('next deadline', state.nextDeadlineMs, oracle.nextDeadlineMs());
    if (oracle.end === oracle.start) return;
    const offset = random.between(oracle.start, oracle.end - 1);
    const message = oracle.at(offset);
    same('epoch', state.epochOf(offset), message.epoch);
    same('done', state.isDone(offset), message.place === 'done');
    const lock = state.lockOf(offset, this.#now);
    if (!oracle.isHeld(offset, 'any', this.#now)) same('lock', lock, undefined);
    else {
      const { owner, door, untilMs, acquired, failed } = message;
      same('lock', lock, { owner, door, lockedUntilMs: untilMs, acquiredCount: acquired, failedCount: failed });
    }
    if (random.chance(0.9)) return;
    const waiting = oracle
      .live()
      .filter(({ place }) => place === 'fresh' || place === 'delayed' || place === 'ready' || place === 'waiting')
      .map((one) => one.offset);
    const from = waiting.filter((one) => one >= offset);
    same('waiting', state.waiting(offset, 10), from.slice(0, 10));
    const owner = this.#owner();
    same('held', state.heldBy(owner), oracle.heldBy(owner));
  }

  #owner(): number {
    return this.#random.between(1, 5);
  }

  #drawAttributes(): MessageAttributes {
    const random = this.#random;
    const says = () => random.chance(this.#attributed);
    return {
      priority: random.chance(0.3) ? random.pick([1, 2, 9, 255]) : 0,
      notBeforeMs: says() ? Math.max(0, this.#now + random.between(-20, 120)) : 0,
      expiresAtMs: says() ? this.#now + random.between(-5, 400) : Number.POSITIVE_INFINITY,
      group: random.chance(0.7) ? `group ${random.below(this.#groupCount)}` : undefined,
      dedupId: undefined,
    };
  }

  #append(): void {
    const random = this.#random;
    const oracle = this.#oracle;
    if (oracle.end - oracle.start < LIVE_MAX) {
      const count = random.chance(0.1) ? random.between(10, 60) : random.between(1, 6);
      // Not every topic has a declared queue, and then no record has attributes.
      for (let i = 0; i < count; i++) {
        const attributes = this.#drawAttributes();
        this.#attributes.append(oracle.logEnd, attributes);
        oracle.append(attributes, this.#now);
      }
      this.messageCount += count;
      this.#batches.push({ endOffset: oracle.logEnd, appendedMs: this.#now });
      oracle.hasOwnExpiry = this.#attributes.hasExpiry;
    }
    if (random.chance(0.8)) this.#extend();
  }

  /** Batch by batch, as the high watermark rises or the log is read after a start. */
  #extend(): void {
    for (const { endOffset, appendedMs } of this.#batches) {
      if (endOffset <= this.#oracle.end) continue;
      this.#state.extend(endOffset, appendedMs, this.#now);
      this.#oracle.extend(endOffset, this.#now);
    }
  }

  #acquire(): void {
    const random = this.#random;
    const size = random.between(1, 4);
    const options = {
      owner: this.#owner(),
      door: random.pick(DOORS),
      messagesMax: random.chance(0.1) ? random.between(10, 80) : random.between(1, 6),
      lockedUntilMs: random.chance(0.3) ? Number.POSITIVE_INFINITY : this.#now + random.between(0, 150),
      isBoundToConnection: random.chance(0.5),
      nowMs: this.#now,
      ...(random.chance(0.2) ? { batchEnd: (offset: number) => offset - (offset % size) + size - 1 } : {}),
    };
    const runs = this.#state.acquire(options);
    same('acquired', runs, this.#oracle.acquire(options));
    if (options.isBoundToConnection && runs.length > 0) this.#handOut(runs);
  }

  /** Perhaps before that is durable; then a crash must not make it look like the first time. */
  #handOut(runs: readonly AcquiredRun[]): void {
    const { mark } = this.#state;
    const highest = Math.max(...runs.map(({ lastOffset }) => lastOffset));
    const isCovered = mark.covers(highest, this.#position);
    for (const { firstOffset, lastOffset, acquiredCount } of runs) {
      for (let offset = firstOffset; offset <= lastOffset; offset++) {
        if (this.#handedOutBefore.has(offset)) same('redelivery', mark.isRedelivery(offset, acquiredCount), true);
        if (isCovered) this.#handedOut.add(offset);
      }
    }
  }

  #drawSettlement(firstOffset: number, lastOffset: number): Settlement {
    const random = this.#random;
    const kind = random.pick(KINDS);
    const settlement: { -readonly [Key in keyof Settlement]: Settlement[Key] } = { firstOffset, lastOffset, kind };
    if (kind === 'release' && random.chance(0.3)) settlement.untilMs = this.#now + random.between(-5, 80);
    if (kind === 'release' && random.chance(0.5)) settlement.isFailure = random.chance(0.5);
    if (kind === 'renew' && random.chance(0.9)) settlement.untilMs = this.#now + random.between(0, 100);
    return settlement;
  }

  #settle(): void {
    const random = this.#random;
    const held = this.#oracle.live().filter(({ offset }) => this.#oracle.isHeld(offset, 'any', this.#now));
    if (held.length === 0) return;
    const owner = random.pick(held).owner;
    const own = held.filter((message) => message.owner === owner).map(({ offset }) => offset);
    const settlements: Settlement[] = [];
    for (let at = random.below(own.length); at < own.length; at++) {
      let last = at;
      while (last + 1 < own.length && own[last + 1] === own[last] + 1 && random.chance(0.8)) last++;
      if (random.chance(0.8)) settlements.push(this.#drawSettlement(own[at], own[last]));
      at = last;
      if (random.chance(0.3)) break;
    }
    this.#settleBoth(owner === 0 || random.chance(0.1) ? 'any' : owner, settlements);
  }

  #settleAnything(): void {
    const random = this.#random;
    const oracle = this.#oracle;
    const settlements = Array.from({ length: random.between(1, 2) }, () => {
      const first = random.between(Math.max(this.#base, oracle.start - 3), oracle.end + 3);
      return this.#drawSettlement(first, first + random.below(3));
    });
    this.#settleBoth(random.chance(0.3) ? 'any' : this.#owner(), settlements);
  }

  #settleBoth(owner: number | 'any', settlements: readonly Settlement[]): void {
    let isDone = true;
    try {
      this.#state.settle(owner, settlements, this.#now);
    } catch (error) {
      if (codeOf(error) !== 'INVALID_RECORD_STATE') throw error;
      isDone = false;
    }
    same('settled', isDone, this.#oracle.settle(owner, settlements, this.#now));
  }

  #releaseOwner(): void {
    const owner = this.#owner();
    const isFailure = this.#random.chance(0.5);
    const released = this.#state.releaseOwner(owner, this.#now, { isFailure });
    same('released', released, this.#oracle.releaseOwner(owner, this.#now, isFailure));
  }

  #advance(): void {
    // A search that gives up makes the order of steps visible: then both take the same ones.
    if (this.settings.lookaheadMax < 1000) {
      for (let isMore = true; isMore; ) {
        isMore = this.#state.advance(this.#now, Number.POSITIVE_INFINITY);
        this.#oracle.advance(this.#now);
      }
      return;
    }
    const budget = this.#random.chance(0.5) ? this.#random.between(1, 5) : 10_000;
    for (let rounds = 0; this.#state.advance(this.#now, budget); rounds++) {
      if (rounds > 5000) throw new Error('advance never ends');
    }
    this.#oracle.advance(this.#now);
  }

  #leave(): void {
    const max = this.#random.between(1, 10);
    const leaving = this.#state.takeLeaving(max);
    same('leaving', leaving, this.#oracle.takeLeaving(max));
    const { start, end } = this.#oracle;
    if (end > start && this.#random.chance(0.1)) this.#leftAnything(this.#random.between(start, end - 1));
    if (this.#random.chance(0.2)) return;
    // Others may have been taken before.
    const taken = this.#oracle.live().filter(({ place }) => place === 'taken');
    const offsets = taken.filter(() => this.#random.chance(0.8)).map(({ offset }) => offset);
    this.#state.left(offsets);
    this.#oracle.left(offsets);
  }

  #leftAnything(offset: number): void {
    const { place } = this.#oracle.at(offset);
    if (place === 'leaving' || place === 'taken') return;
    try {
      this.#state.left([offset]);
    } catch (error) {
      if (codeOf(error) === 'INVALID_RECORD_STATE') return;
      throw error;
    }
    throw new Error(`${offset} left although it was ${place}`);
  }

  #dropOldest(): void {
    const count = this.#random.between(1, 5);
    same('dropped', this.#state.dropOldest(count), this.#oracle.dropOldest(count));
  }

  #discard(): void {
    const { start, end } = this.#oracle;
    const offsets = Array.from({ length: this.#random.between(1, 4) }, () => this.#random.between(start, end + 1));
    const distinct = [...new Set(offsets)];
    same('discarded', this.#state.discard(distinct), this.#oracle.discard(distinct));
  }

  #purge(): void {
    const random = this.#random;
    const { start, end } = this.#oracle;
    const untilOffset = random.chance(0.5) ? end : random.between(start, end);
    const takeInFlight = random.chance(0.5);
    const purged = this.#state.purge({ untilOffset, takeInFlight });
    same('purged', purged, this.#oracle.purge(untilOffset, takeInFlight));
  }

  #replay(): void {
    const random = this.#random;
    const oracle = this.#oracle;
    const low = Math.max(this.#logStart, oracle.start - 40);
    const first = random.between(low, oracle.end);
    const last = Math.min(oracle.end, first + random.below(30));
    if (first < this.#indexStart || random.chance(0.3)) this.#rebuildAttributes();
    const replayed = this.#state.replay(first, last, this.#now, this.#attributes);
    // A new index or not: what comes next is worked out anew.
    oracle.reorder();
    same('replayed', replayed, oracle.replay(first, last, this.#now));
  }

  /** As the registry makes it from the log, when history is replayed or the broker starts. */
  #rebuildAttributes(): void {
    const { AttributeIndex } = this.#implementation;
    this.#attributes = new AttributeIndex();
    for (const { offset, attributes } of this.#oracle.messages) {
      if (offset >= this.#logStart) this.#attributes.append(offset, attributes);
    }
    this.#indexStart = this.#logStart;
    this.#oracle.hasOwnExpiry = this.#attributes.hasExpiry;
  }

  #reset(): void {
    const offset = this.#random.between(this.#logStart, this.#oracle.logEnd);
    if (offset < this.#indexStart) this.#rebuildAttributes();
    this.#state.reset(offset, this.#attributes);
    this.#oracle.reset(offset);
    if (this.#random.chance(0.8)) this.#extend();
  }

  #trim(): void {
    const random = this.#random;
    const { start, end } = this.#oracle;
    // Retention goes no further than what is durable, here: than what the queue has seen.
    const target = random.chance(0.7) ? random.between(this.#logStart, start) : random.between(start, end);
    this.#logStart = Math.max(this.#logStart, target);
    same('trimmed', this.#state.trim(this.#logStart), this.#oracle.trim(this.#logStart));
    // The registry forgets what no queue has unfinished messages of.
    if (random.chance(0.8)) {
      this.#indexStart = Math.max(this.#indexStart, random.chance(0.5) ? this.#oracle.start : this.#logStart);
      this.#attributes.trim(this.#indexStart);
      this.#oracle.hasOwnExpiry = this.#attributes.hasExpiry;
    }
  }

  #configure(): void {
    const settings = drawSettings(this.#random);
    this.settings = settings;
    this.#state.configure(settings, this.#now);
    this.#oracle.configure(settings, this.#now);
  }

  #takeChanges(): void {
    const bytes = this.#state.takeChanges();
    same('has changes', this.#state.hasChanges, false);
    if (bytes !== undefined) this.#durable.push(Buffer.from(bytes));
    this.#committed();
  }

  #committed(): void {
    this.#saved = this.#oracle.clone();
    this.#state.mark.committed(++this.#position);
  }

  #snapshot(): void {
    this.#durable = [...this.#state.snapshot()].map((piece) => Buffer.from(piece));
    this.#oracle.forgetEndedDelays();
    this.#committed();
  }

  #crash(): void {
    this.crashCount++;
    // What was not taken yet is lost, or the crash comes just after it was.
    if (this.#random.chance(0.5)) this.#takeChanges();
    const recovered = this.#saved.clone();
    recovered.recover(this.#oracle);
    this.#oracle = recovered;
    this.#rebuildAttributes();
    this.#state = this.#newState();
    for (const bytes of this.#durable) this.#state.applyChanges(bytes);
    this.#state.mark.doubtBelow(this.#batches.at(-1)?.endOffset ?? this.#base);
    for (const offset of this.#handedOut) this.#handedOutBefore.add(offset);
    same('start', this.#state.startOffset, recovered.start);
    this.#saved = recovered.clone();
    same('trimmed', this.#state.trim(this.#logStart), recovered.trim(this.#logStart));
    this.#extend();
  }
}

function same(what: string, actual: unknown, expected: unknown): void {
  if (isDeepStrictEqual(actual, expected)) return;
  throw new Error(`${what}: ${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}`);
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: { commands: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } },
  });
  const commands = Number(values.commands);
  const startedMs = performance.now();
  const { messages, crashes } = runQueueModel({ seed: Number(values.seed), commands });
  const seconds = (performance.now() - startedMs) / 1000;
  console.log(
    `seed ${values.seed}: ${commands.toLocaleString('en')} commands, ${messages.toLocaleString('en')} messages, ` +
      `${crashes.toLocaleString('en')} crashes, identical; ${seconds.toFixed(0)} s`,
  );
}
