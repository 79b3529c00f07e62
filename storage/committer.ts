/**
 * Group commit: everything appended while the last group was being written and synced becomes the next group, and one
 * sync serves all of it. A group has one number, the `Position` under which its parts are durable.
 *
 * Two ways, chosen when the group starts: its parts go into one journal record, but a partition with much in it writes
 * and syncs its segment itself, at the same time ("direct"). With `log.flush: written` nothing is synced, and a share is
 * much from a few KiB on. The group ends when all of that has ended.
 *
 * Always true: one group is in flight, groups end in order; a partition's bytes of one group go one way, so nothing
 * overtakes; a partition with a part of an atomic commit never goes direct.
 */
import assert from 'node:assert';
import type { Clock, Timer } from './clock.ts';
import { Journal } from './journal.ts';
import type { AppendPart, OtherPart, PartitionKey } from './journal-record.ts';
import type { Position } from './log.ts';
import type { Run, RunOwner } from './tail-cache.ts';

/** What the committer needs of a partition. */
export interface Member extends RunOwner {
  readonly key: PartitionKey;
  /** Its share of the newest group in which it has one; undefined if that has ended. */
  share: Share | undefined;
  /** Last group in which it goes direct. */
  directGroupNumber: number;
  /** Parts that must be in the record of a group in which it goes direct, or that are due to be repeated. */
  takeOpenPart(): OtherPart | undefined;
  takeDirectMark(): OtherPart | undefined;
  /** How far its newest segment is synced. */
  mark(): OtherPart;
  /** Writes everything up to and with group `groupNumber` to its segment and syncs it if `isSynced`. Undefined if that is done already. */
  writeDirect(groupNumber: number, isSynced: boolean): Promise<void> | undefined;
  /** Its runs of the group are durable: the high watermark moves; what went direct is in the segment, the rest waits for its turn. */
  settle(groupNumber: number, isDirect: boolean): void;
  /** After all members have settled: readers that wait for a higher watermark are called. */
  wake(): void;
}

/** A run's owner is always a member; the cache does not need to know. */
function memberOf(run: Run): Member {
  return run.owner as Member;
}

/** What a member has in one group. Several groups may be waiting. */
export class Share {
  readonly member: Member;
  readonly groupNumber: Position;
  sizeBytes = 0;
  /** Has parts of an atomic commit: these go through the journal, and so does everything else of the share. */
  isAtomic = false;

  constructor(member: Member, groupNumber: Position) {
    this.member = member;
    this.groupNumber = groupNumber;
  }
}

export class Group {
  readonly number: Position;
  readonly runs: Run[] = [];
  readonly shares: Share[] = [];
  readonly others: OtherPart[] = [];
  /** Run when the group is durable, before anybody is called back. */
  readonly effects: (() => void)[] = [];
  waiters: (() => void)[] = [];
  sizeBytes = 0;
  isWaited = false;

  constructor(number: Position) {
    this.number = number;
  }
}

export interface CommitterOptions {
  clock: Clock;
  journal: Journal;
  /** `log.flush: synced` */
  isSynced: boolean;
  /** `journal.group.bytes` */
  groupBytesMax: number;
  /** `journal.direct.bytes` */
  directBytesMin: number;
  /** `log.flush.linger.ms` */
  lingerMs: number;
  onFatal: (error: unknown) => void;
  /** After groups have ended, and were answered. */
  onGroupEnd: () => void;
  /** The next journal file is still needed: a checkpoint must come first. */
  onStarved: () => void;
}

const MARK_INTERVAL_MS = 50;
/**
 * At most so many partitions go direct in one group, the rest through the journal: each costs a write and, synced, a sync
 * of its own.
 */
const DIRECT_SYNCED_MAX = 2;
const DIRECT_WRITTEN_MAX = 256;
/** With `log.flush: written`, less than this costs more by its call than by being written twice, and an append stalls more often than an overwrite. */
const DIRECT_WRITTEN_BYTES_MIN = 8 * 1024;

export class Committer {
  readonly #options: CommitterOptions;
  /** Not yet started, in order; the last one takes what comes. */
  readonly #queue: Group[] = [];
  #inFlight: Group | undefined;
  #inFlightSequence = 0;
  /** Durable, and their waiters not yet called. */
  readonly #ended: Group[] = [];
  /** Their waiters were called, but not those who wait to read them. */
  #answered: Group[] = [];
  #nextNumber = 1;
  #timer: Timer | undefined;
  #isScheduled = false;
  /** Wrote directly since the last mark. */
  readonly #unmarked = new Set<Member>();
  #markedMs = 0;
  #isStopped = false;
  #isStarved = false;
  durablePosition: Position = 0;
  groupCount = 0;
  directCount = 0;
  recordCount = 0;
  /** How long the last group took, for the histogram. */
  onGroupMs: ((ms: number) => void) | undefined;

  constructor(options: CommitterOptions) {
    this.#options = options;
  }

  get isIdle(): boolean {
    return this.#inFlight === undefined && this.#queue.length === 0;
  }
  get isStarved(): boolean {
    return this.#isStarved;
  }
  /** Everything in journal records below this has been settled. */
  get settledSequence(): number {
    return this.#inFlight === undefined ? this.#options.journal.nextSequence : this.#inFlightSequence;
  }
  /** Position of the newest part. */
  get newestPosition(): Position {
    return this.#nextNumber - 1;
  }

  /** The group that takes a part now; it will be started. */
  join(urgency: 'waited' | 'lazy'): Group {
    let group = this.#queue.at(-1);
    if (group === undefined || group.sizeBytes >= this.#options.groupBytesMax) {
      group = new Group(this.#nextNumber++);
      this.#queue.push(group);
    }
    if (urgency === 'waited') group.isWaited = true;
    if (this.#inFlight === undefined && !this.#isScheduled) this.#schedule(urgency);
    return group;
  }

  /** Counts bytes that a member has added to its group. */
  count(group: Group, member: Member, sizeBytes: number): void {
    let { share } = member;
    if (share === undefined || share.groupNumber !== group.number) {
      share = new Share(member, group.number);
      member.share = share;
      group.shares.push(share);
    }
    share.sizeBytes += sizeBytes;
    group.sizeBytes += sizeBytes;
  }

  whenDurable(position: Position, callback: () => void): void {
    if (position <= this.durablePosition) {
      callback();
      return;
    }
    // Groups are numbered without gaps: the place in the queue follows from the number.
    if (this.#inFlight?.number === position) {
      this.#inFlight.waiters.push(callback);
      return;
    }
    const first = this.#queue[0];
    assert(first !== undefined, `position ${position} was never given out`);
    const group = this.#queue[position - first.number];
    assert(group !== undefined, `position ${position} was never given out`);
    group.waiters.push(callback);
    if (group.isWaited) return;
    group.isWaited = true;
    if (this.#inFlight === undefined && !this.#isScheduled) this.#schedule('waited');
  }

  /** At the end of a turn: what somebody waits for is on its way now, not after what else this end of the turn brings. */
  startNow(): void {
    if (this.#isScheduled && this.#inFlight === undefined) this.#startNext();
  }

  /** Nothing more is written or answered. */
  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  /** A checkpoint has made room in the journal. */
  unstarve(): void {
    if (!this.#isStarved) return;
    this.#isStarved = false;
    this.#startNext();
  }

  #schedule(urgency: 'waited' | 'lazy'): void {
    if (urgency === 'waited') {
      this.#isScheduled = true;
      this.#timer?.cancel();
      this.#timer = undefined;
      this.#options.clock.endOfTurn(this.#onTurnEnd);
    } else {
      this.#timer ??= this.#options.clock.after(this.#options.lingerMs, this.#onLinger);
    }
  }

  readonly #onTurnEnd = (): void => {
    this.#isScheduled = false;
    if (this.#inFlight === undefined) this.#startNext();
  };
  readonly #onLinger = (): void => {
    this.#timer = undefined;
    if (this.#inFlight === undefined && !this.#isScheduled) this.#startNext();
  };

  #startNext(): void {
    const group = this.#queue[0];
    if (group === undefined || this.#isStopped || this.#isStarved) return;
    const direct = this.#directMembers(group);
    const appends: AppendPart[] = [];
    for (const run of group.runs) {
      const member = memberOf(run);
      if (member.directGroupNumber !== group.number) appends.push({ key: member.key, run });
    }
    const others = this.#otherParts(group, direct);
    if (appends.length + others.length > 0 && !this.#options.journal.hasRoomFor(Journal.recordBytes(appends, others))) {
      // Undone: the group is formed again when there is room. The marks taken are in `group.others` and stay there.
      for (const member of direct) member.directGroupNumber = -1;
      group.others.push(...others.slice(group.others.length));
      this.#isStarved = true;
      this.#options.onStarved();
      return;
    }
    this.#queue.shift();
    this.#inFlight = group;
    this.#inFlightSequence = this.#options.journal.nextSequence;
    this.#run(group, direct, appends, others);
  }

  #directMembers(group: Group): Member[] {
    const { isSynced, directBytesMin } = this.#options;
    const bytesMin = isSynced ? directBytesMin : Math.min(directBytesMin, DIRECT_WRITTEN_BYTES_MIN);
    const shares = group.shares.filter(({ isAtomic, sizeBytes }) => !isAtomic && sizeBytes >= bytesMin);
    const directMax = isSynced ? DIRECT_SYNCED_MAX : DIRECT_WRITTEN_MAX;
    if (shares.length > directMax) {
      shares.sort((a, b) => b.sizeBytes - a.sizeBytes);
      shares.length = directMax;
    }
    const direct = shares.map(({ member }) => member);
    for (const member of direct) member.directGroupNumber = group.number;
    return direct;
  }

  #otherParts(group: Group, direct: readonly Member[]): OtherPart[] {
    const others: OtherPart[] = [];
    for (const { member } of group.shares) {
      const open = member.takeOpenPart();
      if (open !== undefined) others.push(open);
    }
    for (const member of direct) {
      const mark = member.takeDirectMark();
      if (mark !== undefined) others.push(mark);
    }
    if (this.#options.isSynced) this.#repeatMarks(direct, others);
    return [...group.others, ...others];
  }

  /** From time to time the journal says how far direct writes have come: below that, a bad batch is damage, not a torn write. */
  #repeatMarks(direct: readonly Member[], others: OtherPart[]): void {
    const now = this.#options.clock.monotonic();
    if (this.#unmarked.size > 0 && now - this.#markedMs >= MARK_INTERVAL_MS) {
      for (const member of this.#unmarked) others.push(member.mark());
      this.#unmarked.clear();
      this.#markedMs = now;
    }
    for (const member of direct) this.#unmarked.add(member);
  }

  #run(group: Group, direct: readonly Member[], appends: readonly AppendPart[], others: readonly OtherPart[]): void {
    const { isSynced, journal, clock, onFatal } = this.#options;
    const startedMs = clock.monotonic();
    let pending = 1;
    const done = (): void => {
      pending--;
      if (pending > 0 || this.#isStopped) return;
      this.onGroupMs?.(clock.monotonic() - startedMs);
      this.#end(group);
    };
    this.groupCount++;
    try {
      if (appends.length + others.length > 0) {
        this.recordCount++;
        if (!isSynced && group.sizeBytes <= WRITE_NOW_BYTES_MAX) {
          journal.writeNow(appends, others);
        } else {
          pending++;
          journal.write(appends, others).then(done, onFatal);
        }
      }
      for (const member of direct) {
        this.directCount++;
        const writing = member.writeDirect(group.number, isSynced);
        if (writing === undefined) continue;
        pending++;
        writing.then(done, onFatal);
      }
    } catch (error) {
      onFatal(error);
      return;
    }
    done();
  }

  #end(group: Group): void {
    for (const share of group.shares) {
      const { member } = share;
      if (member.share === share) member.share = undefined;
      member.settle(group.number, member.directGroupNumber === group.number);
    }
    this.durablePosition = group.number;
    this.#inFlight = undefined;
    for (const effect of group.effects) effect();
    this.#ended.push(group);
    // The next write is on its way before the answers of this one are made. It may have ended when this returns, if it
    // was made on this thread: then its answers wait for their turn.
    const isFirst = this.#ended.length === 1;
    const next = this.#queue[0];
    if (next !== undefined && !this.#isScheduled) {
      if (next.isWaited) this.#startNext();
      else this.#schedule('lazy');
    }
    // That may have failed at once: then nothing more is answered, durable or not.
    if (!isFirst || this.#isStopped) return;
    for (const ended of this.#ended) for (const waiter of ended.waiters) waiter();
    if (this.#answered.length === 0) this.#options.clock.endOfTurn(this.#onAnswered);
    this.#answered.push(...this.#ended);
    this.#ended.length = 0;
  }

  /** Their answers have left by now: what readers and segments are due comes after that. */
  readonly #onAnswered = (): void => {
    const groups = this.#answered;
    this.#answered = [];
    if (this.#isStopped) return;
    for (const { shares } of groups) for (const { member } of shares) member.wake();
    this.#options.onGroupEnd();
  };
}

/** With `log.flush: written`, records up to this size are written on the calling thread. */
export const WRITE_NOW_BYTES_MAX = 256 * 1024;
