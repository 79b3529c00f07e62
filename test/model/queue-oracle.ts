/**
 * What a queue's state should be, written so that one can see it is right: an object for each message, and every question
 * answered by looking at all of them. It shares with `QueueState` only what its contract says, among that where the cursors
 * stand, because `lookaheadMax` speaks of them.
 */
import type { AcquireOptions, AttemptLimit, LeavingMessage, QueueStateSettings } from '../../broker/queue-state.ts';
import type {
  AcquiredRun,
  LeaveReason,
  MessageAttributes,
  QueueCounts,
  QueueDoor,
  Settlement,
} from '../../broker/queue.ts';

type Place = 'fresh' | 'delayed' | 'flight' | 'ready' | 'waiting' | 'leaving' | 'taken' | 'done';

export interface OracleMessage {
  readonly offset: number;
  readonly attributes: MessageAttributes;
  readonly appendedMs: number;
  place: Place;
  /** Of `delayed` and `waiting`. */
  dueMs: number;
  acquired: number;
  failed: number;
  owner: number;
  untilMs: number;
  isBound: boolean;
  door: QueueDoor;
  reason: LeaveReason;
  limitDoor: QueueDoor | undefined;
  epoch: number;
  replayedAtMs: number | undefined;
  /** What a queue TTL counts from. */
  arrivedMs: number | undefined;
  /** Taken from its group in the acquisition that runs. */
  isHeldByThis: boolean;
}

export class QueueOracle {
  settings: QueueStateSettings;
  /** All there are, from `base` on. */
  messages: OracleMessage[] = [];
  base: number;
  start: number;
  end: number;
  #cursors = new Map<number, number>();
  #passed = 0;
  isPending = false;
  isSearchPending = false;
  /** Some message has an expiry of its own: only then is there a search for expired ones, which moves cursors. */
  hasOwnExpiry = false;
  baseEpoch = 0;
  newestEpoch = 0;

  constructor(startOffset: number, settings: QueueStateSettings) {
    this.settings = settings;
    this.base = startOffset;
    this.start = startOffset;
    this.end = startOffset;
  }

  /** Its own copy, to come back to after a crash. */
  clone(): QueueOracle {
    const copy = new QueueOracle(this.base, this.settings);
    copy.messages = this.messages.map((message) => ({ ...message }));
    copy.start = this.start;
    copy.end = this.end;
    copy.hasOwnExpiry = this.hasOwnExpiry;
    copy.baseEpoch = this.baseEpoch;
    copy.newestEpoch = this.newestEpoch;
    return copy;
  }

  at(offset: number): OracleMessage {
    return this.messages[offset - this.base];
  }

  live(): OracleMessage[] {
    return this.messages.slice(this.start - this.base, this.end - this.base);
  }

  /** Appended, not seen by the queue before `extend`. */
  append(attributes: MessageAttributes, appendedMs: number): void {
    const offset = this.base + this.messages.length;
    this.messages.push({
      offset,
      attributes,
      appendedMs,
      place: 'fresh',
      dueMs: 0,
      acquired: 0,
      failed: 0,
      owner: 0,
      untilMs: Number.POSITIVE_INFINITY,
      isBound: false,
      door: 'kafka',
      reason: 'expired',
      limitDoor: undefined,
      epoch: this.baseEpoch,
      replayedAtMs: undefined,
      arrivedMs: undefined,
      isHeldByThis: false,
    });
  }

  get logEnd(): number {
    return this.base + this.messages.length;
  }

  extend(endOffset: number, nowMs: number): void {
    for (; this.end < endOffset; this.end++) {
      const message = this.at(this.end);
      if (this.settings.ttlMs >= 0) message.arrivedMs = message.appendedMs;
      if (message.place === 'fresh') this.#delayIfNotDue(message, nowMs);
    }
    this.#moveStart();
    // Moves cursors.
    if (!this.settings.isOrdered && !this.settings.isFair) return;
    this.#beginSearch();
    this.#next();
  }

  #delayIfNotDue(message: OracleMessage, nowMs: number): void {
    const { notBeforeMs } = message.attributes;
    const ownMs = notBeforeMs > 0 ? notBeforeMs : 0;
    const { delayMs } = this.settings;
    const defaultMs = delayMs > 0 && message.replayedAtMs === undefined ? message.appendedMs + delayMs : 0;
    const dueMs = ownMs > 0 ? ownMs : defaultMs;
    if (dueMs <= nowMs) return;
    message.place = 'delayed';
    message.dueMs = dueMs;
  }

  configure(settings: QueueStateSettings, nowMs: number): void {
    const old = this.settings;
    this.settings = settings;
    if (settings.ttlMs < 0) for (const message of this.messages) message.arrivedMs = undefined;
    else if (old.ttlMs < 0) for (const message of this.live()) message.arrivedMs = nowMs;
    const isSameOrder = old.isOrdered === settings.isOrdered && old.isFair === settings.isFair;
    const isSameSearch = old.priorityMax === settings.priorityMax && old.lookaheadMax === settings.lookaheadMax;
    if (!isSameOrder || !isSameSearch) this.reorder();
  }

  reorder(): void {
    this.#cursors.clear();
  }

  #moveStart(): void {
    while (this.start < this.end && this.at(this.start).place === 'done') this.start++;
  }

  counts(): QueueCounts {
    const counts = { ready: 0, inFlight: 0, delayed: 0, blocked: 0 };
    const groups = this.#groups();
    for (const message of this.live()) {
      if (message.place === 'flight') counts.inFlight++;
      else if (message.place === 'delayed' || message.place === 'waiting') counts.delayed++;
      else if (message.place === 'fresh' || message.place === 'ready') {
        const group = this.settings.isOrdered ? groups.get(message.attributes.group) : undefined;
        if (group !== undefined && (group.isHeld || !isDue(group.head))) counts.blocked++;
        else counts.ready++;
      }
    }
    return counts;
  }

  leavingCounts(): { all: number; untaken: number } {
    const leaving = this.live().filter(({ place }) => place === 'leaving' || place === 'taken');
    return { all: leaving.length, untaken: leaving.filter(({ place }) => place === 'leaving').length };
  }

  /** Of each ordered group: its lowest waiting message, and whether one of it is in flight. */
  #groups(): Map<string | undefined, { head: OracleMessage | undefined; isHeld: boolean; isHeldByOthers: boolean }> {
    const groups = new Map<
      string | undefined,
      { head: OracleMessage | undefined; isHeld: boolean; isHeldByOthers: boolean }
    >();
    for (let offset = this.start; offset < this.end; offset++) {
      const message = this.at(offset);
      const name = message.attributes.group;
      if (name === undefined || message.place === 'done') continue;
      let group = groups.get(name);
      if (group === undefined) {
        group = { head: undefined, isHeld: false, isHeldByOthers: false };
        groups.set(name, group);
      }
      if (message.place === 'flight') {
        group.isHeld = true;
        if (!message.isHeldByThis) group.isHeldByOthers = true;
      } else if (isWaiting(message)) group.head ??= message;
    }
    return groups;
  }

  #levelOf(message: OracleMessage): number {
    return Math.min(this.settings.priorityMax, message.attributes.priority);
  }

  /** Levels of all messages, highest first. */
  #levels(): number[] {
    const levels = new Set<number>([0]);
    for (const message of this.live()) levels.add(this.#levelOf(message));
    return [...levels].sort((a, b) => b - a);
  }

  #beginSearch(): void {
    this.#passed = 0;
    this.isPending = false;
  }

  #next(): OracleMessage | undefined {
    for (const level of this.#levels()) {
      const message = this.#nextOf(level);
      if (message !== undefined || this.isPending) return message;
    }
    return undefined;
  }

  #nextOf(level: number): OracleMessage | undefined {
    const groups = this.settings.isOrdered ? this.#groups() : new Map();
    const noisy = this.settings.isFair && !this.settings.isOrdered ? this.#noisy() : new Set();
    const mayGo = (message: OracleMessage): boolean => {
      const { group } = message.attributes;
      if (group === undefined) return true;
      if (this.settings.isOrdered) {
        const { head, isHeldByOthers } = groups.get(group);
        return head === message && !isHeldByOthers;
      }
      return !noisy.has(group);
    };
    const lane = this.live().filter((message) => isDue(message) && this.#levelOf(message) === level);
    const cursor = this.#cursors.get(level) ?? 0;
    const behind = lane.find((message) => (message.place === 'ready' || message.offset < cursor) && mayGo(message));
    if (behind !== undefined && behind.offset < cursor) return behind;
    for (const message of lane) {
      if (message.place !== 'fresh' || message.offset < cursor) continue;
      this.#cursors.set(level, message.offset);
      if (behind !== undefined && behind.offset < message.offset) return behind;
      if (mayGo(message)) return message;
      this.#cursors.set(level, message.offset + 1);
      if (++this.#passed > this.settings.lookaheadMax) {
        this.isPending = true;
        return undefined;
      }
    }
    this.#cursors.set(level, this.end);
    if (behind !== undefined) return behind;
    return this.settings.isFair && !this.settings.isOrdered ? lane[0] : undefined;
  }

  /** Tenants with at least 30 messages in flight that are more than a tenth of all. */
  #noisy(): Set<string> {
    const counts = new Map<string, number>();
    let all = 0;
    for (const { place, attributes } of this.live()) {
      if (place !== 'flight') continue;
      all++;
      if (attributes.group !== undefined) counts.set(attributes.group, (counts.get(attributes.group) ?? 0) + 1);
    }
    return new Set([...counts].filter(([, count]) => count >= 30 && count > all * 0.1).map(([group]) => group));
  }

  #pass(message: OracleMessage): void {
    const level = this.#levelOf(message);
    if (message.place === 'fresh' && message.offset >= (this.#cursors.get(level) ?? 0)) {
      this.#cursors.set(level, message.offset + 1);
    }
  }

  expiresAtMs(message: OracleMessage): number {
    const { ttlMs } = this.settings;
    if (message.replayedAtMs !== undefined) return ttlMs >= 0 ? message.replayedAtMs + ttlMs : Number.POSITIVE_INFINITY;
    const queueMs =
      ttlMs >= 0 && message.arrivedMs !== undefined ? message.arrivedMs + ttlMs : Number.POSITIVE_INFINITY;
    return Math.min(message.attributes.expiresAtMs, queueMs);
  }

  acquire(options: AcquireOptions): AcquiredRun[] {
    const taken: OracleMessage[] = [];
    this.#beginSearch();
    while (taken.length < options.messagesMax) {
      const message = this.#next();
      if (message === undefined) break;
      if (this.expiresAtMs(message) <= options.nowMs) this.#leave(message, 'expired', undefined);
      else if (this.#isOverReceiveLimit(message)) this.#leave(message, 'delivery_limit', 'sqs');
      else taken.push(this.#take(message, options));
    }
    const last = taken.at(-1);
    if (options.batchEnd !== undefined && last !== undefined && taken.length >= options.messagesMax) {
      const end = options.batchEnd(last.offset);
      for (let offset = last.offset + 1; offset <= end; offset++) {
        const message = this.#next();
        if (message?.offset !== offset) break;
        if (this.expiresAtMs(message) <= options.nowMs || this.#isOverReceiveLimit(message)) break;
        taken.push(this.#take(message, options));
      }
    }
    for (const message of taken) message.isHeldByThis = false;
    this.isSearchPending = this.isPending;
    return toRuns(taken);
  }

  #isOverReceiveLimit(message: OracleMessage): boolean {
    return this.settings.limits.some((limit) => isReceiveLimit(limit) && message.acquired >= limit.max);
  }

  #take(message: OracleMessage, options: AcquireOptions): OracleMessage {
    this.#pass(message);
    message.place = 'flight';
    message.acquired++;
    message.owner = options.owner;
    message.untilMs = options.lockedUntilMs;
    message.isBound = options.isBoundToConnection;
    message.door = options.door;
    message.isHeldByThis = true;
    message.dueMs = 0;
    return message;
  }

  #leave(message: OracleMessage, reason: LeaveReason, limitDoor: QueueDoor | undefined): void {
    this.#pass(message);
    message.place = 'leaving';
    message.owner = 0;
    message.reason = reason;
    message.limitDoor = limitDoor;
  }

  isHeld(offset: number, owner: number | 'any', nowMs: number): boolean {
    if (offset < this.start || offset >= this.end) return false;
    const message = this.at(offset);
    if (message.place !== 'flight' || message.untilMs <= nowMs) return false;
    return owner === 'any' || message.owner === owner;
  }

  /** False: refused, nothing happened. */
  settle(owner: number | 'any', settlements: readonly Settlement[], nowMs: number): boolean {
    const seen = new Set<number>();
    for (const { firstOffset, lastOffset } of settlements) {
      for (let offset = firstOffset; offset <= lastOffset; offset++) {
        if (seen.has(offset) || !this.isHeld(offset, owner, nowMs)) return false;
        seen.add(offset);
      }
    }
    for (const settlement of settlements) {
      for (let offset = settlement.firstOffset; offset <= settlement.lastOffset; offset++) {
        this.#settleOne(this.at(offset), settlement, nowMs);
      }
    }
    this.#moveStart();
    return true;
  }

  #settleOne(message: OracleMessage, settlement: Settlement, nowMs: number): void {
    switch (settlement.kind) {
      case 'accept':
      case 'gap':
        message.place = 'done';
        break;
      case 'reject':
        message.place = 'leaving';
        message.reason = 'rejected';
        message.limitDoor = undefined;
        break;
      case 'release':
        this.#giveBack(message, settlement.isFailure ?? true, settlement.untilMs ?? 0, nowMs);
        break;
      case 'renew':
        message.untilMs = settlement.untilMs ?? Number.POSITIVE_INFINITY;
        break;
      case 'undo':
        message.acquired--;
        message.place = message.acquired === 0 ? 'fresh' : 'ready';
        break;
    }
  }

  #giveBack(message: OracleMessage, isFailure: boolean, untilMs: number, nowMs: number): void {
    if (isFailure) message.failed++;
    const limit = this.settings.limits.find((one) => {
      if (isReceiveLimit(one)) return false;
      return one.counter === 'acquired' ? message.acquired >= one.max : message.failed > one.max;
    });
    if (limit !== undefined) {
      message.place = 'leaving';
      message.reason = 'delivery_limit';
      message.limitDoor = limit.door;
    } else if (untilMs > nowMs) {
      message.place = 'waiting';
      message.dueMs = untilMs;
    } else message.place = 'ready';
  }

  heldBy(owner: number): number {
    return this.live().filter((message) => message.place === 'flight' && message.owner === owner).length;
  }

  releaseOwner(owner: number, nowMs: number, isFailure: boolean): number {
    const held = this.live().filter((message) => message.place === 'flight' && message.owner === owner);
    for (const message of held) this.#giveBack(message, isFailure, 0, nowMs);
    return held.length;
  }

  /** Everything that is due, and the search for expired messages. */
  advance(nowMs: number): void {
    for (const message of this.live()) {
      if (message.place === 'flight' && message.untilMs <= nowMs) this.#giveBack(message, true, 0, nowMs);
      else if (message.place === 'waiting' && message.dueMs <= nowMs) message.place = 'ready';
      else if (message.place === 'delayed' && message.dueMs <= nowMs) message.place = 'fresh';
    }
    this.#expire(nowMs);
    this.nextDeadlineMs();
  }

  #hasExpiry(): boolean {
    return this.settings.ttlMs >= 0 || this.hasOwnExpiry;
  }

  #expire(nowMs: number): void {
    if (!this.#hasExpiry()) return;
    this.#beginSearch();
    let levels = this.#levels();
    while (levels.length > 0) {
      const message = this.#nextOf(levels[0]);
      if (message === undefined || this.expiresAtMs(message) > nowMs) levels.shift();
      else {
        this.#leave(message, 'expired', undefined);
        if (this.settings.isOrdered) levels = this.#levels();
      }
    }
  }

  nextDeadlineMs(): number {
    let soonest = Number.POSITIVE_INFINITY;
    for (const message of this.live()) {
      if (message.place === 'flight') soonest = Math.min(soonest, message.untilMs);
      else if (message.place === 'waiting' || message.place === 'delayed') soonest = Math.min(soonest, message.dueMs);
    }
    if (!this.#hasExpiry()) return soonest;
    this.#beginSearch();
    for (const level of this.#levels()) {
      const message = this.#nextOf(level);
      if (message !== undefined) soonest = Math.min(soonest, this.expiresAtMs(message));
    }
    return soonest;
  }

  takeLeaving(max: number): LeavingMessage[] {
    const taken = this.live()
      .filter(({ place }) => place === 'leaving')
      .slice(0, max);
    return taken.map((message) => {
      message.place = 'taken';
      const { offset, reason, acquired, failed, limitDoor } = message;
      return { offset, reason, acquiredCount: acquired, failedCount: failed, limitDoor };
    });
  }

  left(offsets: readonly number[]): void {
    for (const offset of offsets) this.at(offset).place = 'done';
    this.#moveStart();
  }

  dropOldest(count: number): number {
    let dropped = 0;
    this.#beginSearch();
    for (; dropped < count; dropped++) {
      const message = this.#next();
      if (message === undefined) break;
      this.#leave(message, 'maxlen', undefined);
    }
    return dropped;
  }

  discard(offsets: readonly number[]): number {
    const waiting = offsets.filter((offset) => offset >= this.start && offset < this.end && isWaiting(this.at(offset)));
    for (const offset of waiting) this.at(offset).place = 'done';
    this.#moveStart();
    return waiting.length;
  }

  purge(untilOffset: number, takeInFlight: boolean): number {
    let count = 0;
    for (const message of this.live()) {
      if (message.offset >= untilOffset) break;
      if (!isWaiting(message) && !(takeInFlight && message.place === 'flight')) continue;
      message.place = 'done';
      count++;
    }
    this.#moveStart();
    if (count > 0) this.reorder();
    return count;
  }

  trim(logStart: number): number {
    let count = 0;
    for (const message of this.messages) {
      if (message.offset >= logStart) break;
      if (message.place === 'done') continue;
      message.place = 'done';
      if (message.offset < this.end) count++;
    }
    this.end = Math.max(this.end, logStart);
    this.start = Math.max(this.start, Math.min(logStart, this.end));
    this.#moveStart();
    if (count > 0) this.reorder();
    return count;
  }

  replay(firstOffset: number, lastOffset: number, nowMs: number): number {
    const range = this.messages.filter(
      ({ offset }) => offset >= firstOffset && offset <= lastOffset && offset < this.end,
    );
    const back = range.filter(({ place }) => place === 'done');
    if (back.length === 0) return 0;
    this.newestEpoch++;
    for (const message of range) {
      message.epoch = this.newestEpoch;
      message.replayedAtMs = nowMs;
      if (message.place === 'done') {
        message.place = 'fresh';
        message.acquired = 0;
        message.failed = 0;
        this.#delayIfNotDue(message, nowMs);
      } else if (message.place === 'delayed' && message.attributes.notBeforeMs <= 0) message.place = 'fresh';
    }
    this.start = Math.min(this.start, back[0].offset);
    this.reorder();
    return back.length;
  }

  reset(startOffset: number): void {
    this.newestEpoch++;
    this.baseEpoch = this.newestEpoch;
    for (const message of this.messages) {
      message.place = message.offset < startOffset ? 'done' : 'fresh';
      message.acquired = 0;
      message.failed = 0;
      message.owner = 0;
      message.epoch = this.baseEpoch;
      message.replayedAtMs = undefined;
      message.arrivedMs = undefined;
    }
    this.start = startOffset;
    this.end = startOffset;
    this.reorder();
  }

  /** A snapshot does not keep the delay of what is available again. */
  forgetEndedDelays(): void {
    for (const message of this.messages) if (message.place === 'ready') message.dueMs = 0;
  }

  /** What a broker finds that starts anew: call `extend` afterwards. Messages appended since are taken from `current`. */
  recover(current: QueueOracle): void {
    for (let offset = this.logEnd; offset < current.logEnd; offset++) {
      const { attributes, appendedMs } = current.at(offset);
      this.append(attributes, appendedMs);
    }
    this.settings = current.settings;
    for (const message of this.messages) {
      message.arrivedMs = undefined;
      switch (message.place) {
        case 'flight':
          message.owner = 0;
          if (!message.isBound) break;
          message.place = 'ready';
          break;
        case 'taken':
          message.place = 'leaving';
          break;
        case 'delayed':
          message.place = 'fresh';
          break;
        case 'ready':
          // That a delay has ended is not written down; `advance` will notice again.
          if (message.dueMs > 0) message.place = 'waiting';
          break;
        default:
      }
    }
    this.end = this.start;
    this.reorder();
  }
}

function isWaiting({ place }: OracleMessage): boolean {
  return place === 'fresh' || place === 'ready' || place === 'delayed' || place === 'waiting';
}

function isDue(message: OracleMessage | undefined): boolean {
  return message?.place === 'fresh' || message?.place === 'ready';
}

function isReceiveLimit({ door, counter }: AttemptLimit): boolean {
  return door === 'sqs' && counter === 'acquired';
}

function toRuns(messages: readonly OracleMessage[]): AcquiredRun[] {
  const runs: { firstOffset: number; lastOffset: number; acquiredCount: number; failedCount: number }[] = [];
  for (const { offset, acquired, failed } of messages) {
    const last = runs.at(-1);
    if (last?.lastOffset === offset - 1 && last.acquiredCount === acquired && last.failedCount === failed) {
      last.lastOffset = offset;
    } else runs.push({ firstOffset: offset, lastOffset: offset, acquiredCount: acquired, failedCount: failed });
  }
  return runs;
}
