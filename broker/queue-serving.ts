/**
 * The serve loop of all queues. At the end of a turn of the loop it looks at what is due, hands waiting messages to
 * waiting consumers, and commits everything that was decided since the last time as one: at once if somebody waits for
 * it, else `queue.commit.linger.ms` after the first of it.
 *
 * Always true: a turn does a bounded amount of work and goes on in the next; no door is called from within its own call;
 * a state that changed is in the next commit; what is handed out leaves when that is durable, or is below a durable mark
 * (`hand-out-mark.ts`). One timer serves all deadlines. Costs are per run of messages, not per message.
 */
import { MillraceError } from '../protocol/errors.ts';
import type { Clock, Timer } from '../storage/clock.ts';
import type { CommitPart, Engine, Position } from './engine.ts';
import type { AcquiredRun, Acquisition, OwnerId } from './queue.ts';
import { Consumer, type ConsumerHost, type ConsumerOptions } from './queue-consumer.ts';
import type { LogEntry, LoggedState, QueueEvent, QueueLog } from './queue-log.ts';
import type { QueuePartition } from './queue-partition.ts';
import { TimerWheel } from './timer-wheel.ts';

/** Handed out in one turn, over all queues. */
const TURN_MESSAGES_MAX = 20_000;
/** Searches of one turn. */
const TURN_PORTIONS_MAX = 512;
/** Portions of one partition before the next has its turn. */
const VISIT_PORTIONS_MAX = 64;
/** Deadlines looked at in one turn: each may be a slice of `QueueState.advance`. */
const TURN_DEADLINES_MAX = 256;
/** And for so long at most. */
const TURN_DEADLINES_MS = 8;
/** Given back in one turn when their consumer has gone. */
const TURN_RELEASES_MAX = 10_000;
/** The wall clock may jump: deadlines are compared with it at least so often. */
const LOOK_MS_MAX = 1000;

/** Something with a time at which it wants to be looked at. */
export interface Due {
  readonly nextDeadlineMs: number;
  /** True: there is more to do now. */
  due(nowMs: number): boolean;
}

export interface ServingParts {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: QueueLog<LoggedState>;
  /** `queue.leases: synced` */
  readonly areLeasesSynced: boolean;
  /** `queue.commit.linger.ms` */
  readonly commitLingerMs: number;
  /** Position of what the queues lean on and others have committed. */
  readonly metadataPosition: () => Position;
  /** After every change of a state, before its commit: it may change it further, but commit nothing. */
  changed(partition: QueuePartition): void;
  failed(error: unknown): void;
}

export class QueueServing implements ConsumerHost {
  readonly #parts: ServingParts;
  readonly #consumers = new Map<OwnerId, Consumer>();
  #newestOwner: OwnerId = 0;
  /** Where somebody may get something. */
  readonly #woken = new Set<QueuePartition>();
  /** States with changes that are not committed. */
  readonly #dirty = new Set<LogEntry<LoggedState>>();
  /** Partitions that changed in this turn. */
  readonly #changed = new Set<QueuePartition>();
  /** Where something was handed out since the last commit that did not wait for it. */
  readonly #marked = new Set<QueuePartition>();
  #events: QueueEvent[] = [];
  #urgency: 'waited' | 'lazy' = 'lazy';
  #waiters: (() => void)[] = [];
  /** What was handed out in this turn and need not wait. */
  #leaving: (() => void)[] = [];
  /** Since when there is something to commit that nobody waits for (−1: nothing); its timer is left alone when that is committed. */
  #dirtyMs = -1;
  #lingering: Timer | undefined;
  readonly #deadlines = new TimerWheel<Due>();
  readonly #dues = new Map<QueuePartition, Due>();
  #timer: Timer | undefined;
  #timerMs = Number.POSITIVE_INFINITY;
  #isScheduled = false;
  #isStopped = false;
  delivered = 0;

  constructor(parts: ServingParts) {
    this.#parts = parts;
  }

  consumer(options: ConsumerOptions): Consumer {
    return new Consumer(this, options);
  }
  get consumerCount(): number {
    return this.#consumers.size;
  }
  newOwner(consumer: Consumer): OwnerId {
    const owner = this.nextOwner();
    this.#consumers.set(owner, consumer);
    return owner;
  }
  nextOwner(): OwnerId {
    return ++this.#newestOwner;
  }
  gone(consumer: Consumer): void {
    this.#consumers.delete(consumer.id);
  }

  // --- what others say ---

  wake(partition: QueuePartition): void {
    if (partition.queue.isDeleted) return;
    this.#woken.add(partition);
    this.#schedule();
  }

  release(partition: QueuePartition, owner: OwnerId, isFailure: boolean): void {
    const { state } = partition;
    if (partition.queue.isDeleted || state.heldBy(owner) === 0) return;
    partition.releasing.add(owner);
    this.#releaseSome(partition, owner, isFailure);
  }

  /** Nobody is served from the partition before it is all back in its place. */
  #releaseSome(partition: QueuePartition, owner: OwnerId, isFailure: boolean): void {
    const { state, queue, releasing } = partition;
    if (queue.isDeleted || this.#isStopped) return;
    const { clock } = this.#parts;
    state.releaseOwner(owner, clock.now(), { isFailure, messagesMax: TURN_RELEASES_MAX });
    if (state.heldBy(owner) > 0) clock.endOfTurn(() => this.#releaseSome(partition, owner, isFailure));
    else releasing.delete(owner);
    this.change(partition);
  }

  /** The state of the partition was changed. */
  change(partition: QueuePartition): void {
    this.#changed.add(partition);
    this.#dirty.add(partition.entry);
    this.wake(partition);
  }

  /** A state that nobody is served from has changed. */
  dirty(entry: LogEntry<LoggedState>): void {
    this.#dirty.add(entry);
    this.#schedule();
  }

  /** For the next commit. */
  event(event: QueueEvent): void {
    this.#events.push(event);
    this.#schedule();
  }

  /** Nothing of it is served or committed any more. */
  forget(partition: QueuePartition): void {
    this.#woken.delete(partition);
    this.#changed.delete(partition);
    this.#marked.delete(partition);
    this.#dirty.delete(partition.entry);
    const due = this.#dues.get(partition);
    if (due !== undefined) this.#deadlines.delete(due);
    this.#dues.delete(partition);
  }
  forgetEntry(entry: LogEntry<LoggedState>): void {
    this.#dirty.delete(entry);
  }

  /** Looks at `due` when its time has come; to be called again when that has changed. */
  watch(due: Due): void {
    this.#deadlines.set(due, due.nextDeadlineMs);
    this.#arm();
  }
  unwatch(due: Due): void {
    this.#deadlines.delete(due);
  }

  // --- durability ---

  commit(urgency: 'waited' | 'lazy'): Position {
    this.#commit(urgency, []);
    return this.#position;
  }

  /** What `change` does to states and `others` are one journal record. Everything decided before is committed before. */
  commitTogether(others: readonly CommitPart[], change: () => void): Position {
    this.#commit(this.#urgency, []);
    change();
    this.#commit('waited', others);
    return this.#position;
  }

  whenDurable(callback: () => void): void {
    if (this.#dirty.size === 0 && this.#events.length === 0 && this.#waiters.length === 0) {
      this.#parts.engine.whenDurable(this.#position, callback);
      return;
    }
    this.#urgency = 'waited';
    this.#waiters.push(callback);
    this.#schedule();
  }

  /**
   * Calls back when what was acquired may leave: at the end of this turn if a crash may forget it, else when it is durable.
   * From within `onAcquired`.
   */
  whenLeased({ isForgettable }: Acquisition, callback: () => void): void {
    if (isForgettable) this.#leaving.push(callback);
    else this.whenDurable(callback);
  }

  get #position(): Position {
    return Math.max(this.#parts.log.position, this.#parts.metadataPosition());
  }

  #commit(urgency: 'waited' | 'lazy', others: readonly CommitPart[]): void {
    if (this.#isStopped) return;
    const { engine, log } = this.#parts;
    this.#look();
    this.#dirtyMs = -1;
    if (this.#events.length > 0 || this.#dirty.size > 0 || others.length > 0) {
      const events = this.#events;
      this.#events = [];
      log.commit(events, this.#dirty, { urgency, others });
      this.#dirty.clear();
      for (const { state } of this.#marked) state.mark.committed(log.position);
      this.#marked.clear();
    }
    this.#urgency = 'lazy';
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    engine.whenDurable(this.#position, () => {
      for (const callback of waiters) callback();
    });
  }

  /** Looks at what changed. */
  #look(): void {
    for (const partition of this.#changed) {
      this.#parts.changed(partition);
      this.#watchState(partition);
    }
    this.#changed.clear();
  }

  /** Commits what was decided if somebody waits for it (true), or sees to it that it is before long. */
  #commitSoon(): boolean {
    this.#look();
    const isWaited = this.#waiters.length > 0 || this.#urgency === 'waited' || this.#events.length > 0;
    const { clock, commitLingerMs } = this.#parts;
    if (isWaited || commitLingerMs === 0) this.#commit(this.#urgency, []);
    else if (this.#dirty.size > 0 && this.#dirtyMs < 0) {
      this.#dirtyMs = clock.monotonic();
      this.#linger(commitLingerMs);
    }
    return isWaited;
  }

  #linger(delayMs: number): void {
    const { clock, commitLingerMs } = this.#parts;
    this.#lingering ??= clock.after(delayMs, () => {
      this.#lingering = undefined;
      if (this.#dirtyMs < 0) return;
      const restMs = this.#dirtyMs + commitLingerMs - clock.monotonic();
      if (restMs >= 1) this.#linger(restMs);
      else this.#guard(() => this.#commit('lazy', []));
    });
  }

  // --- deadlines ---

  #watchState(partition: QueuePartition): void {
    const { state } = partition;
    let due = this.#dues.get(partition);
    if (due === undefined) {
      if (state.nextDeadlineMs === Number.POSITIVE_INFINITY) return;
      due = {
        get nextDeadlineMs() {
          return state.nextDeadlineMs;
        },
        due: (nowMs) => {
          const isMore = state.advance(nowMs);
          this.change(partition);
          return isMore;
        },
      };
      this.#dues.set(partition, due);
    }
    this.#deadlines.set(due, state.nextDeadlineMs);
  }

  #arm(): void {
    const { clock } = this.#parts;
    const nextMs = this.#deadlines.nextMs;
    if (nextMs >= this.#timerMs || this.#isStopped) return;
    this.#timer?.cancel();
    this.#timerMs = nextMs;
    const delayMs = Math.min(LOOK_MS_MAX, Math.max(0, nextMs - clock.now()));
    this.#timer = clock.after(delayMs, () => {
      this.#timer = undefined;
      this.#timerMs = Number.POSITIVE_INFINITY;
      this.#turn();
    });
  }

  /** True: more is due. */
  #lookAtDue(nowMs: number): boolean {
    const { clock } = this.#parts;
    const untilMs = clock.monotonic() + TURN_DEADLINES_MS;
    for (let count = 0; count < TURN_DEADLINES_MAX; count++) {
      if (this.#deadlines.nextMs > nowMs) return false;
      const due = this.#deadlines.takeDue(nowMs);
      if (due === undefined) return false;
      due.due(nowMs);
      this.#deadlines.set(due, due.nextDeadlineMs);
      if (clock.monotonic() >= untilMs) break;
    }
    return this.#deadlines.nextMs <= nowMs;
  }

  // --- turns ---

  #schedule(): void {
    if (this.#isScheduled || this.#isStopped) return;
    this.#isScheduled = true;
    this.#parts.clock.endOfTurn(() => {
      this.#isScheduled = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.#isStopped) return;
    const nowMs = this.#parts.clock.now();
    const served: Consumer[] = [];
    this.#guard(() => {
      const isMoreDue = this.#lookAtDue(nowMs);
      // Settlements are on their way to the disk while messages are handed out, which need not wait.
      if (!this.#parts.areLeasesSynced && this.#commitSoon()) this.#parts.engine.startNow();
      const isMoreToServe = this.#serve(nowMs, served);
      this.#commitSoon();
      const leaving = this.#leaving;
      this.#leaving = [];
      for (const callback of leaving) callback();
      for (const consumer of served) consumer.served();
      // Callbacks and moves may have decided more.
      if (isMoreDue || isMoreToServe || this.#waiters.length > 0 || this.#changed.size > 0) this.#schedule();
      this.#arm();
    });
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#stop();
      // The log takes nothing any more; anything else is a broken invariant.
      if (!(error instanceof MillraceError)) throw error;
      this.#parts.failed(error);
    }
  }

  /** True: there may be more. */
  #serve(nowMs: number, served: Consumer[]): boolean {
    let portions = 0;
    let messages = 0;
    // Those that are not done go to the end of the set, where this loop finds them again.
    for (const partition of this.#woken) {
      this.#woken.delete(partition);
      let isDone = false;
      for (let visit = 0; visit < VISIT_PORTIONS_MAX && !isDone; visit++) {
        const count = this.#portion(partition, nowMs, served);
        isDone = count === 0;
        messages += count;
        portions++;
      }
      if (!isDone) this.#woken.add(partition);
      if (portions >= TURN_PORTIONS_MAX || messages >= TURN_MESSAGES_MAX) break;
    }
    this.delivered += messages;
    return this.#woken.size > 0;
  }

  /** One portion to the consumer whose turn it is; 0: nobody can be served here. */
  #portion(partition: QueuePartition, nowMs: number, served: Consumer[]): number {
    const { queue, state, demand, log } = partition;
    // What cannot be read is not handed out.
    if (queue.isDeleted || log.isFenced || partition.releasing.size > 0) return 0;
    for (;;) {
      const portion = demand.next();
      if (portion === undefined) return 0;
      const consumer = this.#consumers.get(portion.owner);
      const room = consumer === undefined ? 0 : Math.min(portion.messages, consumer.room(partition));
      if (consumer === undefined || room === 0) {
        demand.want(portion.owner, 0);
        continue;
      }
      if (log.startOffset > state.startOffset) this.#trim(partition);
      const messagesMax = Math.min(room, queue.locksMax - state.counts.inFlight);
      if (messagesMax <= 0) return 0;
      if (state.nextDeadlineMs <= nowMs && state.advance(nowMs)) this.change(partition);
      const lockedUntilMs = consumer.lockMs === 'connection' ? Number.POSITIVE_INFINITY : nowMs + consumer.lockMs;
      const { batchEnd } = consumer;
      const runs = state.acquire({
        owner: consumer.id,
        door: consumer.door,
        messagesMax,
        lockedUntilMs,
        isBoundToConnection: consumer.isBoundToConnection,
        nowMs,
        ...(batchEnd ? { batchEnd: (offset: number) => batchEnd(partition, offset) } : {}),
      });
      const isForgettable = this.#isForgettable(partition, consumer, runs);
      if (state.hasChanges) {
        this.#changed.add(partition);
        this.#dirty.add(partition.entry);
      }
      if (runs.length === 0) {
        // The search goes on in another turn.
        if (state.isSearchPending) this.wake(partition);
        return 0;
      }
      let count = 0;
      for (const { firstOffset, lastOffset } of runs) count += lastOffset - firstOffset + 1;
      demand.served(consumer.id, count);
      // Its protocol has no other order.
      if (consumer.door === 'kafka') runs.sort((a, b) => a.firstOffset - b.firstOffset);
      if (!consumer.isServed) served.push(consumer);
      const { index } = partition;
      consumer.acquired(partition, { partition: index, runs, messageCount: count, lockedUntilMs, isForgettable });
      return count;
    }
  }

  /** A crash takes the connection with the lock; that the message was handed out is known as long as it is below the mark. */
  #isForgettable(partition: QueuePartition, consumer: Consumer, runs: readonly AcquiredRun[]): boolean {
    const { areLeasesSynced, engine } = this.#parts;
    if (areLeasesSynced || !consumer.isBoundToConnection || runs.length === 0) return false;
    let highest = 0;
    for (const { lastOffset } of runs) highest = Math.max(highest, lastOffset);
    this.#marked.add(partition);
    return partition.state.mark.covers(highest, engine.durablePosition);
  }

  #trim(partition: QueuePartition): void {
    partition.state.trim(partition.log.startOffset);
    this.#changed.add(partition);
    this.#dirty.add(partition.entry);
  }

  /** Commits what was decided; afterwards nothing happens any more. */
  close(): void {
    if (this.#isStopped) return;
    try {
      this.#commit('lazy', []);
    } catch (error) {
      // The log has failed or is closed: nobody was told anything.
      if (!(error instanceof MillraceError)) throw error;
    }
    this.#stop();
  }

  #stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
    this.#lingering?.cancel();
  }
}
