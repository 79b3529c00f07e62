/** One group on its own: time that stands still, a log that is durable on command, and answers that are counted. */
import { resolveOptions } from '../../broker/config.ts';
import { Group, type GroupHost, type Instant } from '../../broker/group.ts';
import type { JoinAnswer, JoinRequest, Protocol, SyncAnswer } from '../../broker/group-member.ts';
import type { GroupEvent } from '../../broker/group-records.ts';
import type { ErrorCode } from '../../protocol/errors.ts';
import { Writer } from '../../protocol/bytes.ts';
import { writeConsumerProtocolSubscription } from '../../protocol/kafka/messages.ts';

/** Something asked: `answers` has one entry once it is answered, and never more. */
export class Asked<Answer> {
  readonly answers: Answer[] = [];
  readonly reply = (answer: Answer): void => {
    this.answers.push(answer);
  };
  /** The one answer. */
  get answer(): Answer {
    if (this.answers.length !== 1) throw new Error(`${this.answers.length} answers where 1 was expected`);
    return this.answers[0];
  }
  get isAnswered(): boolean {
    return this.answers.length > 0;
  }
}

export interface JoinOptions {
  memberId?: string;
  instanceId?: string | null;
  clientId?: string;
  sessionTimeoutMs?: number;
  rebalanceTimeoutMs?: number;
  protocolType?: string;
  /** Name → topics subscribed to. */
  protocols?: readonly Protocol[];
  version?: number;
}

export function subscription(...topics: string[]): Buffer {
  const writer = new Writer();
  writer.int16(1);
  writeConsumerProtocolSubscription(writer, { topics, userData: null, ownedPartitions: [] }, 1);
  return writer.finish();
}

export function joinRequest(groupId: string, options: JoinOptions = {}): JoinRequest {
  const version = options.version ?? 9;
  return {
    groupId,
    memberId: options.memberId ?? '',
    instanceId: options.instanceId ?? null,
    clientId: options.clientId ?? 'client',
    clientHost: '/127.0.0.1',
    sessionTimeoutMs: options.sessionTimeoutMs ?? 10_000,
    rebalanceTimeoutMs: options.rebalanceTimeoutMs ?? 60_000,
    protocolType: options.protocolType ?? 'consumer',
    protocols: options.protocols ?? [{ name: 'range', metadata: subscription('t1') }],
    requiresKnownMember: version >= 4,
    canSkipAssignment: version >= 9,
  };
}

export class GroupBench {
  nowMs = 1_000;
  /** Whether commits are durable when they are made. */
  isDurableAtOnce = true;
  readonly events: GroupEvent[] = [];
  readonly group: Group;
  readonly host: GroupHost;
  #waiting: (() => void)[] = [];
  #ids: number;

  /** `before`: an earlier life of the broker, whose ids are not given again. */
  constructor(options: Record<string, number> = {}, before?: GroupBench) {
    this.#ids = before === undefined ? 0 : before.#ids;
    this.host = {
      log: {
        commit: (events) => {
          this.events.push(...events);
          for (const event of events) if (event.kind === 'group') this.group.stored = event.value;
        },
        whenDurable: (callback) => {
          if (this.isDurableAtOnce) callback();
          else this.#waiting.push(callback);
        },
      },
      options: resolveOptions(options),
      newMemberId: (prefix) => `${prefix}-${++this.#ids}`,
    };
    this.group = new Group('g', this.host);
    if (before?.group.stored !== undefined) {
      this.group.load(before.group.stored);
      this.group.restartSessions(this.now);
    }
  }

  get now(): Instant {
    return { monotonicMs: this.nowMs, wallMs: 1_700_000_000_000 + this.nowMs };
  }

  /** Everything committed so far is durable now. */
  sync(): void {
    for (const callback of this.#waiting.splice(0)) callback();
  }

  /** Lets time pass, looking at the group whenever it asked to be looked at. */
  advance(byMs: number): void {
    const endMs = this.nowMs + byMs;
    for (let rounds = 0; this.group.nextDeadlineMs <= endMs; rounds++) {
      if (rounds > 10_000) throw new Error('the group asks to be looked at for ever');
      this.nowMs = Math.max(this.nowMs, this.group.nextDeadlineMs);
      this.group.tick(this.now);
    }
    this.nowMs = endMs;
  }

  join(options: JoinOptions = {}): Asked<JoinAnswer> {
    const asked = new Asked<JoinAnswer>();
    this.group.join(this.now, joinRequest('g', options), asked.reply);
    return asked;
  }

  syncGroup(
    memberId: string,
    assignments: Record<string, string> = {},
    options: {
      generation?: number;
      instanceId?: string | null;
      protocolType?: string | null;
      protocolName?: string | null;
    } = {},
  ): Asked<SyncAnswer> {
    const asked = new Asked<SyncAnswer>();
    this.group.sync(
      this.now,
      {
        groupId: 'g',
        generation: options.generation ?? this.group.generation,
        memberId,
        instanceId: options.instanceId ?? null,
        protocolType: options.protocolType ?? null,
        protocolName: options.protocolName ?? null,
        assignments: Object.entries(assignments).map(([id, text]) => ({ memberId: id, assignment: Buffer.from(text) })),
      },
      asked.reply,
    );
    return asked;
  }

  heartbeat(memberId: string, options: { generation?: number; instanceId?: string | null } = {}): ErrorCode {
    return this.group.heartbeat(this.now, {
      memberId,
      instanceId: options.instanceId ?? null,
      generation: options.generation ?? this.group.generation,
    });
  }

  leave(...members: (string | { instanceId: string; memberId?: string })[]): ErrorCode[] {
    return this.group.leave(
      this.now,
      members.map((member) =>
        typeof member === 'string'
          ? { memberId: member, instanceId: null }
          : { memberId: member.memberId ?? '', instanceId: member.instanceId },
      ),
    );
  }

  /** Asks for an id and joins with it. */
  joinDynamic(options: JoinOptions = {}): { memberId: string; asked: Asked<JoinAnswer> } {
    const { memberId } = this.join(options).answer;
    return { memberId, asked: this.join({ ...options, memberId }) };
  }

  /** A stable group of `count` dynamic members; the first leads. */
  stable(count: number, options: JoinOptions = {}): string[] {
    const ids = Array.from({ length: count }, () => this.join(options).answer.memberId);
    const joins = ids.map((memberId) => this.join({ ...options, memberId }));
    this.advance(this.host.options['group.initial.rebalance.delay.ms']);
    for (const { answer } of joins) if (answer.error !== 'NONE') throw new Error(answer.error);
    for (const memberId of ids.slice(1)) this.syncGroup(memberId);
    this.syncGroup(ids[0], Object.fromEntries(ids.map((id) => [id, `of ${id}`])));
    this.sync();
    if (this.group.state !== 'Stable') throw new Error(`the group is ${this.group.state}`);
    return ids;
  }
}
