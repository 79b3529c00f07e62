/**
 * The log that the states of all queues are rebuilt from (`__millrace_queues`; no door shows it): which states there are,
 * what changed in each, and now and then a state whole. One commit holds whatever changed in a turn, of all queues.
 *
 *   record value   version 1 int8 | kind int8 | state number uint32 | rest
 *   opened 1       rest: msgpack [group, topic id, partition, start offset]; partition −1 is the deduplication window
 *   dropped 2      no rest
 *   changed 3      rest: changes, as the state wrote them
 *   piece 4        rest: flags int8 (1: first, 2: last) and a piece of a snapshot. Pieces count when the last one is
 *                  there: a log that was being rewritten when the broker ended has some of them for nothing
 */
import { pack, unpack } from 'msgpackr';
import { MillraceError } from '../protocol/errors.ts';
import type { DecodedRecord, RecordInit } from '../protocol/record-batch.ts';
import type { Clock } from '../storage/clock.ts';
import type { CommitPart, Engine, Position } from './engine.ts';
import type { QueueKey } from './queue.ts';
import { StateLog } from './state-log.ts';
import { stateLogConfig } from './topics.ts';

/** Name of the log's folder; no door shows it. */
export const QUEUES_TOPIC = '__millrace_queues';
export const QUEUES_TOPIC_ID = '00000000-0000-0000-0000-000000000002';
/** In the place of a partition: the deduplication window of a queue. */
export const WINDOW = -1;

/** A state machine that writes its own changes. */
export interface LoggedState {
  /** What changed since the last call; undefined: nothing. */
  takeChanges(): Buffer | undefined;
  applyChanges(bytes: Buffer): void;
  /** Pieces that rebuild it; the first resets. */
  snapshot(): Iterable<Buffer>;
}

/** A state as the log knows it. */
export interface LogEntry<State extends LoggedState> {
  readonly id: number;
  readonly key: QueueKey;
  readonly startOffset: number;
  readonly state: State;
}

export type QueueEvent =
  | { readonly kind: 'opened'; readonly id: number; readonly key: QueueKey; readonly startOffset: number }
  | { readonly kind: 'dropped'; readonly id: number }
  | { readonly kind: 'changed'; readonly id: number; readonly bytes: Buffer }
  | {
      readonly kind: 'piece';
      readonly id: number;
      readonly isFirst: boolean;
      readonly isLast: boolean;
      readonly bytes: Buffer;
    };

const VERSION = 1;
const KINDS = ['opened', 'dropped', 'changed', 'piece'] as const;
const HEADER_BYTES = 6;
const FIRST = 1;
const LAST = 2;
/** Events of one commit, if nobody asks for them to be one. */
const COMMIT_BYTES = 4 * 1024 * 1024;

export interface QueueLogParts<State extends LoggedState> {
  readonly engine: Engine;
  readonly clock: Clock;
  /** `journal.entry.bytes` */
  readonly entryBytes: number;
  /** Makes the state of a key that the log has; undefined if its topic or queue is gone. Only while loading. */
  open(key: QueueKey, startOffset: number): State | undefined;
}

export class QueueLog<State extends LoggedState> {
  readonly #engine: Engine;
  readonly #log: StateLog<QueueEvent>;
  /** Of a commit that changed no queue. */
  #othersPosition: Position = 0;
  readonly #open: QueueLogParts<State>['open'];
  readonly #entries = new Map<number, LogEntry<State>>();
  /** While loading: pieces of snapshots whose last one is to come. */
  readonly #pieces = new Map<number, Buffer[]>();
  /** While loading: states of topics that are gone. */
  readonly #orphans = new Set<number>();
  readonly #commitBytes: number;
  #isLoaded = false;
  #newestId = 0;

  constructor({ engine, clock, entryBytes, open }: QueueLogParts<State>) {
    this.#engine = engine;
    this.#open = open;
    // Half of it: framing, and what others add to a commit.
    this.#commitBytes = Math.min(COMMIT_BYTES, Math.floor(entryBytes / 2));
    const partition = engine.openPartition({
      topicId: QUEUES_TOPIC_ID,
      topic: QUEUES_TOPIC,
      index: 0,
      config: stateLogConfig,
    });
    this.#log = new StateLog(
      engine,
      partition,
      { encode, decode, apply: (event) => this.#apply(event), live: () => this.#live() },
      clock,
      Math.floor(entryBytes / 2),
    );
  }

  /** Reads the log. Once, before anything else. */
  async load(): Promise<void> {
    await this.#log.load();
    this.#isLoaded = true;
    this.#pieces.clear();
    if (this.#orphans.size === 0) return;
    this.#log.commit(
      [...this.#orphans].map((id) => ({ kind: 'dropped', id })),
      { urgency: 'lazy' },
    );
    this.#orphans.clear();
  }

  get position(): Position {
    return Math.max(this.#log.position, this.#othersPosition);
  }
  entries(): IterableIterator<LogEntry<State>> {
    return this.#entries.values();
  }

  /** For a new state: `opened` with it goes into a commit before any change of the state. */
  newId(): number {
    return ++this.#newestId;
  }
  add(entry: LogEntry<State>): void {
    this.#entries.set(entry.id, entry);
  }
  has({ id }: LogEntry<State>): boolean {
    return this.#entries.has(id);
  }
  remove(entry: LogEntry<State>): void {
    this.#entries.delete(entry.id);
  }

  /**
   * Commits events, then what changed in the states, then `others`, as one if it is not too large; what is together with
   * `others` always is: then it must fit into an entry of the journal.
   */
  commit(
    events: readonly QueueEvent[],
    dirty: Iterable<LogEntry<State>>,
    options: { urgency: 'waited' | 'lazy'; others?: readonly CommitPart[] },
  ): void {
    const { urgency, others = [] } = options;
    let part: QueueEvent[] = [...events];
    let partBytes = part.length * 128;
    for (const { id, state } of windowsLast(dirty)) {
      const bytes = state.takeChanges();
      // Nothing is kept of a state that is not in the log: a transient queue's.
      if (bytes === undefined || !this.#entries.has(id)) continue;
      if (partBytes + bytes.length > this.#commitBytes && others.length === 0) {
        if (part.length > 0) this.#log.commit(part, { urgency, isPartial: true });
        part = [];
        partBytes = 0;
        if (bytes.length > this.#commitBytes) {
          this.#commitWhole(id, state, urgency);
          continue;
        }
      }
      part.push({ kind: 'changed', id, bytes });
      partBytes += bytes.length + HEADER_BYTES;
    }
    if (part.length > 0) this.#log.commit(part, { urgency, others });
    else if (others.length > 0) this.#othersPosition = this.#engine.commit(others, urgency).position;
  }

  /** Changes too large for one commit: the state whole instead, whose pieces count together. */
  #commitWhole(id: number, state: State, urgency: 'waited' | 'lazy'): void {
    for (const event of piecesOf(id, state)) this.#log.commit([event], { urgency, isPartial: true });
  }

  /** The events as a part of somebody else's commit. */
  part(events: readonly QueueEvent[]): ReturnType<StateLog<QueueEvent>['part']> {
    return this.#log.part(events);
  }

  #apply(event: QueueEvent): void {
    // While running, the states have decided this and are there already.
    if (this.#isLoaded) return;
    const { id } = event;
    if (id > this.#newestId) this.#newestId = id;
    if (event.kind === 'opened') {
      if (this.#entries.has(id) || this.#orphans.has(id)) return;
      const state = this.#open(event.key, event.startOffset);
      if (state === undefined) this.#orphans.add(id);
      else this.#entries.set(id, { id, key: event.key, startOffset: event.startOffset, state });
      return;
    }
    if (event.kind === 'dropped') {
      this.#entries.delete(id);
      this.#orphans.delete(id);
      this.#pieces.delete(id);
      return;
    }
    const state = this.#entries.get(id)?.state;
    if (state === undefined) return;
    if (event.kind === 'changed') {
      this.#pieces.delete(id);
      state.applyChanges(event.bytes);
      return;
    }
    if (event.isFirst) this.#pieces.set(id, []);
    const pieces = this.#pieces.get(id);
    if (pieces === undefined) return;
    pieces.push(event.bytes);
    if (!event.isLast) return;
    this.#pieces.delete(id);
    for (const piece of pieces) state.applyChanges(piece);
  }

  *#live(): Iterable<QueueEvent> {
    for (const { id, key, startOffset, state } of this.#entries.values()) {
      yield { kind: 'opened', id, key, startOffset };
      yield* piecesOf(id, state);
    }
  }
}

/** What a window has covered is not looked for duplicates again: that they were discarded is in the log before. */
function* windowsLast<State extends LoggedState>(entries: Iterable<LogEntry<State>>): Iterable<LogEntry<State>> {
  for (const entry of entries) if (entry.key.partition !== WINDOW) yield entry;
  for (const entry of entries) if (entry.key.partition === WINDOW) yield entry;
}

function* piecesOf(id: number, state: LoggedState): Iterable<QueueEvent> {
  let previous: Buffer | undefined;
  let isFirst = true;
  for (const piece of state.snapshot()) {
    if (previous !== undefined) {
      yield { kind: 'piece', id, isFirst, isLast: false, bytes: previous };
      isFirst = false;
    }
    previous = piece;
  }
  if (previous !== undefined) yield { kind: 'piece', id, isFirst, isLast: true, bytes: previous };
}

function encode(event: QueueEvent, nowMs: number): RecordInit {
  const rest = restOf(event);
  const value = Buffer.allocUnsafe(HEADER_BYTES + rest.length + (event.kind === 'piece' ? 1 : 0));
  value[0] = VERSION;
  value[1] = KINDS.indexOf(event.kind) + 1;
  value.writeUInt32BE(event.id, 2);
  let at = HEADER_BYTES;
  if (event.kind === 'piece') value[at++] = (event.isFirst ? FIRST : 0) | (event.isLast ? LAST : 0);
  value.set(rest, at);
  return { key: null, value, timestamp: nowMs };
}

function restOf(event: QueueEvent): Uint8Array {
  switch (event.kind) {
    case 'opened':
      return pack([event.key.group, event.key.topicId, event.key.partition, event.startOffset]);
    case 'dropped':
      return Buffer.alloc(0);
    case 'changed':
    case 'piece':
      return event.bytes;
  }
}

/** The shapes are ours: the record's checksum and version vouch for them. */
function decode({ value, offset }: DecodedRecord): QueueEvent {
  const kind = value !== null && value[0] === VERSION ? KINDS[value[1] - 1] : undefined;
  if (value === null || kind === undefined) {
    throw new MillraceError('DATA_DIR_FORMAT', `the queue log has an event at offset ${offset} that is not known`);
  }
  const id = value.readUInt32BE(2);
  const rest = value.subarray(HEADER_BYTES);
  switch (kind) {
    case 'opened': {
      const [group, topicId, partition, startOffset] = unpack(rest) as [string, string, number, number];
      return { kind, id, key: { group, topicId, partition }, startOffset };
    }
    case 'dropped':
      return { kind, id };
    case 'changed':
      return { kind, id, bytes: rest };
    case 'piece': {
      return { kind, id, isFirst: (rest[0] & FIRST) !== 0, isLast: (rest[0] & LAST) !== 0, bytes: rest.subarray(1) };
    }
  }
}
