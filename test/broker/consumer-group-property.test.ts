/**
 * Random members against one consumer group: no partition is used by two members at once, whatever they send and lose;
 * a group that is read again is the same; and when the noise ends every partition has an owner.
 */
import test from 'ava';
import fc from 'fast-check';
import { ConsumerGroupBench, type Owned } from '../support/consumer-group-bench.ts';

const CLIENTS = 5;
const TOPICS = ['t', 'u', 'v'];
const SUBSCRIPTIONS: { topics: string[] | null; regex: string | null }[] = [
  { topics: ['t'], regex: '' },
  { topics: ['t', 'u'], regex: '' },
  { topics: [], regex: '[uv]' },
  { topics: ['u'], regex: 't|v' },
];

type Step =
  | { kind: 'beat'; client: number; isLost: boolean; isFull: boolean }
  | { kind: 'join'; client: number; subscription: number; assignor: number }
  | { kind: 'subscribe'; client: number; subscription: number }
  /** The client gives up what it was told to; before that it reports what it still has. */
  | { kind: 'revoke'; client: number }
  | { kind: 'leave'; client: number; isForNow: boolean }
  | { kind: 'die'; client: number }
  | { kind: 'topic'; topic: number; partitionCount: number }
  | { kind: 'wait'; ms: number }
  | { kind: 'restart' };

const client = fc.nat(CLIENTS - 1);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({ kind: fc.constant('beat' as const), client, isLost: fc.boolean(), isFull: fc.boolean() }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('join' as const),
      client,
      subscription: fc.nat(SUBSCRIPTIONS.length - 1),
      assignor: fc.nat(2),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('subscribe' as const),
      client,
      subscription: fc.nat(SUBSCRIPTIONS.length - 1),
    }),
  },
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('revoke' as const), client }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('leave' as const), client, isForNow: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('die' as const), client }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('topic' as const), topic: fc.nat(2), partitionCount: fc.nat(6) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(0, 500, 1_000, 5_000, 20_000) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
);

interface Client {
  id: string;
  epoch: number;
  readonly instanceId: string | null;
  /** `topic-partition` it works on. */
  using: Set<string>;
  /** What it was told to have; undefined: nothing new. */
  told: Set<string> | undefined;
  subscription: number;
  /** When it last heard from the group: after a session timeout it must not work on anything. */
  heardMs: number;
  /** When it may first have been told what `told` says: after a rebalance timeout it is put out. */
  toldMs: number;
  isIn: boolean;
  /** An answer was lost: as real clients it says everything again, so that it is told everything again. */
  mustRepeat: boolean;
}

class World {
  readonly bench = new ConsumerGroupBench({ 'group.consumer.assignment.interval.ms': 100 });
  readonly clients: Client[] = Array.from({ length: CLIENTS }, (_value, index) => ({
    id: `m${index}`,
    epoch: 0,
    instanceId: index % 2 === 1 ? `i${index}` : null,
    using: new Set(),
    told: undefined,
    subscription: 0,
    heardMs: 0,
    toldMs: 0,
    isIn: false,
    mustRepeat: false,
  }));
  #incarnations = 0;

  constructor() {
    this.bench.createTopic('t', 3);
    this.bench.createTopic('u', 2);
  }

  run(next: Step): void {
    switch (next.kind) {
      case 'beat':
        return this.beat(this.clients[next.client], next);
      case 'join':
        return this.join(this.clients[next.client], next.subscription, [null, 'uniform', 'range'][next.assignor]);
      case 'subscribe': {
        const self = this.clients[next.client];
        if (!self.isIn) return;
        self.subscription = next.subscription;
        return this.#ask(self, this.#full(self), false);
      }
      case 'revoke':
        return this.revoke(this.clients[next.client]);
      case 'leave':
        return this.#leave(this.clients[next.client], next.isForNow);
      case 'die': {
        // Its process ends: it works on nothing, and the group learns of it by its silence.
        const self = this.clients[next.client];
        this.#out(self);
        self.id = `m${next.client}.${++this.#incarnations}`;
        return;
      }
      case 'topic':
        return this.#topic(TOPICS[next.topic], next.partitionCount);
      case 'wait':
        return this.wait(next.ms);
      case 'restart': {
        const before = ConsumerGroupBench.state(this.bench.group);
        const again = ConsumerGroupBench.state(this.bench.reload(this.bench.group.live()));
        if (JSON.stringify(before) !== JSON.stringify(again)) throw new Error('live events do not rebuild the group');
        this.bench.restart();
        const after = ConsumerGroupBench.state(this.bench.group);
        if (JSON.stringify(before) !== JSON.stringify(after)) throw new Error('the log does not rebuild the group');
        return;
      }
    }
  }

  wait(ms: number): void {
    this.bench.advance(ms);
    // A client that heard nothing, or did nothing about what it heard, for as long gives everything up by itself.
    for (const self of this.clients) {
      const isSilent = this.bench.nowMs - self.heardMs >= 45_000;
      const isSlow = self.told !== undefined && this.bench.nowMs - self.toldMs >= 30_000;
      if (isSilent || isSlow) this.#out(self);
    }
  }

  #topic(name: string, partitionCount: number): void {
    const known = this.bench.topics.get(name);
    if (partitionCount === 0 && known !== undefined) {
      this.bench.deleteTopic(name);
      for (const self of this.clients) {
        for (const set of [self.using, self.told])
          for (const one of set ?? []) if (one.startsWith(name)) set?.delete(one);
      }
    } else if (partitionCount > (known?.partitionCount ?? 0)) this.bench.createTopic(name, partitionCount);
  }

  join(self: Client, subscription: number, assignor: string | null): void {
    self.subscription = subscription;
    self.using = new Set();
    self.told = undefined;
    self.epoch = 0;
    self.isIn = true;
    self.heardMs = this.bench.nowMs;
    this.#ask(self, { ...SUBSCRIPTIONS[subscription], assignor, owned: {}, rebalanceTimeoutMs: 30_000 }, false);
  }

  beat(self: Client, options: { isLost: boolean; isFull: boolean }): void {
    if (!self.isIn) return;
    this.#ask(self, options.isFull ? this.#full(self) : {}, options.isLost);
  }

  #full(self: Client): { owned: Owned; rebalanceTimeoutMs: number } {
    return { ...SUBSCRIPTIONS[self.subscription], owned: this.#owned(self), rebalanceTimeoutMs: 30_000 };
  }

  /** Works on what it was told to have, and reports it. */
  revoke(self: Client): void {
    if (!self.isIn || self.told === undefined) return;
    const { told } = self;
    self.using = new Set([...self.using].filter((one) => told.has(one)));
    self.using = new Set(told);
    self.told = undefined;
    this.#check();
    this.#ask(self, { owned: this.#owned(self) }, false);
  }

  #ask(self: Client, options: Parameters<ConsumerGroupBench['heartbeat']>[2] & object, isLost: boolean): void {
    try {
      const all = self.mustRepeat ? { ...options, ...this.#full(self) } : options;
      // Whoever says what it has means it: what it was told before and has not taken yet it is told again.
      if (all.owned) self.told = undefined;
      const answer = this.bench.heartbeat(self.id, self.epoch, { ...all, instanceId: self.instanceId });
      self.mustRepeat = isLost;
      if (isLost) return;
      if (answer.assignment !== null && self.told === undefined) self.toldMs = self.heardMs;
      self.heardMs = this.bench.nowMs;
      self.epoch = answer.memberEpoch;
      if (answer.assignment !== null) {
        const named = this.bench.named(answer.assignment) ?? {};
        self.told = new Set(
          Object.entries(named).flatMap(([name, indexes]) => indexes.map((index) => `${name}-${index}`)),
        );
      }
    } catch {
      // Refused: the client gives up what it has and joins anew when it is told to.
      this.#out(self);
    }
  }

  #out(self: Client): void {
    self.using = new Set();
    self.told = undefined;
    self.epoch = 0;
    self.isIn = false;
    self.mustRepeat = false;
  }

  #leave(self: Client, isForNow: boolean): void {
    if (!self.isIn) return;
    this.#out(self);
    try {
      const isStatic = isForNow && self.instanceId !== null;
      this.bench.leave(self.id, isStatic ? -2 : -1, self.instanceId);
    } catch {
      // It was out already.
    }
  }

  #owned(self: Client): Owned {
    const owned: Record<string, number[]> = {};
    for (const one of self.using) {
      const [name, index] = one.split('-');
      if (!this.bench.topics.has(name)) continue;
      const indexes = owned[name] ?? [];
      indexes.push(Number(index));
      owned[name] = indexes;
    }
    return owned;
  }

  #check(): void {
    const users = new Map<string, string>();
    for (const { id, using } of this.clients) {
      for (const one of using) {
        const other = users.get(one);
        if (other !== undefined) throw new Error(`${one} is used by ${other} and ${id}`);
        users.set(one, id);
      }
    }
  }

  /** Everybody behaves; who is not in stays out. Every partition somebody subscribes to must find an owner. */
  settle(): void {
    for (let round = 0; round < 40; round++) {
      this.wait(5_000);
      for (const self of this.clients) {
        if (!self.isIn) continue;
        this.beat(self, { isLost: false, isFull: false });
        this.revoke(self);
      }
    }
    const members = this.clients.filter(({ isIn }) => isIn);
    const wanted = new Set<string>();
    for (const { subscription } of members) {
      const { topics, regex } = SUBSCRIPTIONS[subscription];
      const pattern = new RegExp(`^(${regex === '' ? 'none' : regex})$`);
      for (const [name, { partitionCount }] of this.bench.topics) {
        if (!topics?.includes(name) && !pattern.test(name)) continue;
        for (let index = 0; index < partitionCount; index++) wanted.add(`${name}-${index}`);
      }
    }
    const used = members.flatMap(({ using }) => [...using]);
    const isSame = used.length === wanted.size && used.every((one) => wanted.has(one));
    if (!isSame) throw new Error(`used ${used.sort().join()} instead of ${[...wanted].sort().join()}`);
    const { state } = this.bench.group;
    if (state !== (members.length === 0 ? 'Empty' : 'Stable')) throw new Error(`the group is ${state} in the end`);
  }
}

test('no partition has two users, the log is the group, and the group comes to rest', (t) => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 5, maxLength: 80 }), (steps) => {
      const world = new World();
      for (const next of steps) world.run(next);
      world.settle();
    }),
    { numRuns: Number(process.env['MILLRACE_RUNS'] ?? 400) },
  );
  t.pass();
});
