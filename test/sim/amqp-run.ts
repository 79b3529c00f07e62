/**
 * A seeded workload through the AMQP door of the whole broker on a simulated disk: publishers on confirms and in
 * transactions over several queues, consumers that ack, reject, give back and commit, dead-letter exchanges, messages that
 * expire; the process dies with some operation of the disk under way, several times.
 *
 * What is promised: nothing confirmed is lost; nothing comes back whose ack was durable; a transaction happened whole or
 * not at all, its acks with its publishes; a message that leaves is in all queues that its dead-letter exchange knows, or
 * still where it was; queues keep the order of each publisher.
 */
import type { MethodInit } from '../../protocol/amqp/methods.ts';
import { type FieldValue, type Table, textField } from '../../protocol/amqp/table.ts';
import { SimClock } from '../support/sim-clock.ts';
import { SimNetwork } from '../support/sim-network.ts';
import { SimRandom } from '../support/sim-random.ts';
import { AmqpClient } from './amqp-client.ts';
import { someOptions, SimNode } from './broker-node.ts';
import { cuts } from './queue-run.ts';

const QUEUES = ['work', 'short', 'copy', 'dead1', 'dead2', 'late'] as const;
type QueueName = (typeof QUEUES)[number];
/** Where dead letters of a queue go. */
const DEAD: Readonly<Partial<Record<QueueName, readonly QueueName[]>>> = { work: ['dead1', 'dead2'], short: ['late'] };
const TTL_MS = 300;

type Fate = 'asked' | 'answered' | undefined;

/** A message in one of the queues that it was published to. */
interface Copy {
  readonly id: string;
  readonly queue: QueueName;
  readonly publisher: string;
  readonly number: number;
  published: 'asked' | 'answered' | 'never';
  acked: Fate;
  rejected: Fate;
  /** What of it is acked, by queue, once it is a dead letter. */
  readonly ackedDead: Map<QueueName, Fate>;
  /** What must happen together with its publish, or its ack. */
  transaction: Transaction | undefined;
  wasSeen: boolean;
  /** Also acked outside of its transaction, after a crash. */
  isAckedAlone: boolean;
  /** At the end, somewhere. */
  isFound: boolean;
}

interface Transaction {
  readonly publishes: Copy[];
  readonly acks: Copy[];
  /** Neither committed for sure, nor rolled back. */
  isOpen: boolean;
}

export interface AmqpRunResult {
  published: number;
  confirmed: number;
  deliveries: number;
  acked: number;
  deadLetters: number;
  transactions: number;
  deaths: number;
  operations: number;
}

export interface AmqpRunOptions {
  lives?: number;
  steps?: number;
  onNote?: (line: string) => void;
}

export function runAmqp(seed: number, options: AmqpRunOptions = {}): Promise<AmqpRunResult> {
  return new AmqpRun(seed, options).run();
}

/** A client that publishes, on confirms or in transactions. */
interface Publisher {
  readonly name: string;
  readonly client: AmqpClient;
  /** Undefined: on confirms. */
  transaction: Transaction | undefined;
  /** By delivery tag, from 1. */
  readonly sent: (readonly Copy[])[];
  confirmed: number;
  /** Waits for tx.commit-ok. */
  committing: Transaction | undefined;
}

interface Held {
  readonly tag: number;
  readonly copy: Copy;
  readonly queue: QueueName;
}

interface Consumer {
  readonly client: AmqpClient;
  readonly queue: QueueName;
  readonly held: Held[];
  /** Acks that a later answer of the channel makes certain. */
  unsure: { copy: Copy; queue: QueueName; what: 'acked' | 'rejected' }[];
  asked: { copy: Copy; queue: QueueName; what: 'acked' | 'rejected' }[][];
  transaction: Transaction | undefined;
  committing: Transaction | undefined;
}

class AmqpRun {
  readonly #seed: number;
  readonly #random: SimRandom;
  readonly #options: AmqpRunOptions;
  readonly #clock = new SimClock();
  readonly #node: SimNode;
  /** By id and queue. */
  readonly #copies = new Map<string, Copy>();
  readonly #failures: string[] = [];
  #publishers: Publisher[] = [];
  #consumers: Consumer[] = [];
  #newest = 0;
  #life = 0;
  readonly #result: AmqpRunResult = {
    published: 0,
    confirmed: 0,
    deliveries: 0,
    acked: 0,
    deadLetters: 0,
    transactions: 0,
    deaths: 0,
    operations: 0,
  };

  constructor(seed: number, options: AmqpRunOptions) {
    this.#seed = seed;
    this.#random = new SimRandom(seed);
    this.#options = options;
    const settings = someOptions(this.#random);
    settings['log.flush'] = 'synced';
    settings['log.disk.reserve.bytes'] = 0;
    // Room for transactions of some messages.
    settings['journal.file.bytes'] = 512 * 1024;
    settings['journal.entry.bytes'] = 192 * 1024;
    this.#node = new SimNode(
      {
        clock: this.#clock,
        random: this.#random,
        network: new SimNetwork(this.#clock, this.#random),
        note: (line) => this.#note(line),
        fail: (line) => this.#fail(line),
      },
      settings,
    );
  }

  #note(line: string): void {
    this.#options.onNote?.(`${this.#clock.monotonic().toFixed(1)}: ${line}`);
  }
  #fail(line: string): void {
    this.#failures.push(line);
  }

  async run(): Promise<AmqpRunResult> {
    const random = this.#random;
    const { lives = 4, steps = 40 } = this.#options;
    await this.#start();
    await this.#declare();
    for (let life = 1; life <= lives; life++) {
      this.#open();
      const death = random.pick(cuts);
      this.#node.dieAfter(
        random.between(1, 120),
        death === 'kill' ? { kind: 'kill' } : { kind: 'power cut', cut: death },
      );
      for (let step = 0; step < steps && this.#node.isUp; step++) {
        this.#step();
        await this.#clock.advance(random.pick([0, 1, 1, 5, 20, 100]));
        if (this.#failures.length > 0) break;
      }
      if (!this.#node.isDown) this.#node.die({ kind: 'kill' });
      this.#result.deaths++;
      this.#crashed();
      await this.#start();
      if (this.#failures.length > 0) break;
    }
    if (this.#failures.length === 0) await this.#empty();
    this.#result.operations = this.#node.operations;
    if (this.#failures.length > 0) throw new Error(`seed ${this.#seed}: ${this.#failures.slice(0, 5).join('; ')}`);
    return this.#result;
  }

  async #start(): Promise<void> {
    for (;;) {
      let isUp: boolean | undefined;
      void this.#node.start().then((done) => {
        isUp = done;
      });
      while (isUp === undefined) await this.#clock.advance(5);
      if (isUp) return;
    }
  }

  get #accept() {
    const broker = this.#node.broker;
    if (broker === undefined) throw new Error('the broker is down');
    return broker.amqp.accept;
  }

  async #declare(): Promise<void> {
    const asked: MethodInit[] = [];
    const queue = (name: string, table: Table = []): void => {
      asked.push({ method: 'queue.declare', queue: name, durable: true, arguments: table });
    };
    asked.push({ method: 'exchange.declare', exchange: 'dlx', type: 'direct', durable: true });
    asked.push({ method: 'exchange.declare', exchange: 'fan', type: 'fanout', durable: true });
    const ttl: FieldValue = { type: 'I', value: TTL_MS };
    const dlx = textField('dlx');
    queue('work', [
      ['x-dead-letter-exchange', dlx],
      ['x-dead-letter-routing-key', textField('dead')],
    ]);
    queue('short', [
      ['x-message-ttl', ttl],
      ['x-dead-letter-exchange', dlx],
      ['x-dead-letter-routing-key', textField('late')],
    ]);
    for (const name of ['copy', 'dead1', 'dead2', 'late']) queue(name);
    const bind = (exchange: string, name: string, routingKey: string): void => {
      asked.push({ method: 'queue.bind', queue: name, exchange, routingKey });
    };
    bind('dlx', 'dead1', 'dead');
    bind('dlx', 'dead2', 'dead');
    bind('dlx', 'late', 'late');
    for (const name of ['work', 'short', 'copy']) bind('fan', name, '');
    let answers = 0;
    const client = new AmqpClient(this.#accept, {
      onMethod: ({ method }) => void (method.endsWith('-ok') && answers++),
    });
    for (const method of asked) client.send(method);
    // And channel.open-ok.
    while (answers < asked.length + 1) await this.#clock.advance(5);
    client.destroy();
  }

  // --- clients ---

  #open(): void {
    const random = this.#random;
    for (let count = random.between(1, 3); count > 0; count--) this.#openPublisher();
    for (let count = random.between(1, 4); count > 0; count--) this.#openConsumer(random.pick(QUEUES));
  }

  #openPublisher(): void {
    const life = this.#life;
    const isOnConfirms = this.#random.chance(0.6);
    const client = new AmqpClient(this.#accept, {
      onMethod: (method) => {
        if (life !== this.#life) return;
        if (method.method === 'basic.ack') this.#confirmed(publisher, method.deliveryTag, method.multiple);
        else if (method.method === 'tx.commit-ok') this.#committed(publisher);
        else if (method.method === 'channel.close') this.#fail(`a publisher was refused: ${method.replyText}`);
      },
    });
    const publisher: Publisher = {
      name: `p${this.#newest++}`,
      client,
      transaction: isOnConfirms ? undefined : newTransaction(),
      sent: [],
      confirmed: 0,
      committing: undefined,
    };
    client.send(isOnConfirms ? { method: 'confirm.select', noWait: false } : ({ method: 'tx.select' } as MethodInit));
    this.#publishers.push(publisher);
  }

  #confirmed(publisher: Publisher, tag: number, isMultiple: boolean): void {
    for (let each = isMultiple ? publisher.confirmed + 1 : tag; each <= tag; each++) {
      for (const copy of publisher.sent[each - 1] ?? []) copy.published = 'answered';
      this.#result.confirmed++;
    }
    publisher.confirmed = Math.max(publisher.confirmed, tag);
  }

  #openConsumer(queue: QueueName): void {
    const life = this.#life;
    const random = this.#random;
    const isInTransactions = random.chance(0.3);
    const client = new AmqpClient(this.#accept, {
      onMethod: (method, body) => {
        if (life !== this.#life) return;
        if (method.method === 'basic.deliver') {
          const copy = this.#saw(queue, body);
          if (copy !== undefined) consumer.held.push({ tag: method.deliveryTag, copy, queue });
        } else if (method.method === 'tx.commit-ok') this.#committed(consumer);
        else if (method.method === 'exchange.declare-ok') {
          for (const { copy, queue: from, what } of consumer.asked.shift() ?? []) settleSurely(copy, from, what);
        } else if (method.method === 'channel.close') this.#fail(`a consumer was refused: ${method.replyText}`);
      },
    });
    const consumer: Consumer = {
      client,
      queue,
      held: [],
      unsure: [],
      asked: [],
      transaction: isInTransactions ? newTransaction() : undefined,
      committing: undefined,
    };
    if (isInTransactions) client.send({ method: 'tx.select' } as MethodInit);
    client.send({ method: 'basic.qos', prefetchCount: random.between(1, 6) });
    client.send({ method: 'basic.consume', queue, consumerTag: 'c' });
    this.#consumers.push(consumer);
  }

  /** A delivery: of a message that is allowed to be here. */
  #saw(queue: QueueName, body: string): Copy | undefined {
    const id = body.trimEnd();
    this.#result.deliveries++;
    const own = this.#copies.get(`${id} ${queue}`);
    const source = (['work', 'short'] as const).find((from) => DEAD[from]?.includes(queue));
    const copy = own ?? (source === undefined ? undefined : this.#copies.get(`${id} ${source}`));
    if (copy === undefined) {
      this.#fail(`${id} in ${queue}, where nobody sent it`);
      return undefined;
    }
    copy.wasSeen = true;
    if (copy.published === 'never') this.#fail(`${id} in ${queue} was rolled back`);
    if (own !== undefined) {
      if (copy.acked === 'answered') this.#fail(`${id} in ${queue} again, after its ack was durable`);
      if (copy.rejected === 'answered') this.#fail(`${id} in ${queue} again, after its reject was durable`);
    } else {
      this.#result.deadLetters++;
      if (copy.ackedDead.get(queue) === 'answered') this.#fail(`${id} in ${queue} again, after its ack was durable`);
      if (copy.acked === 'answered') this.#fail(`${id} is a dead letter in ${queue} after its ack was durable`);
    }
    return copy;
  }

  #committed(of: Publisher | Consumer): void {
    const { committing } = of;
    if (committing === undefined) return this.#fail('a commit that nobody asked for');
    of.committing = undefined;
    committing.isOpen = false;
    this.#result.transactions++;
    for (const copy of committing.publishes) copy.published = 'answered';
    for (const copy of committing.acks) {
      copy.acked = 'answered';
      copy.transaction = undefined;
    }
  }

  // --- steps ---

  #step(): void {
    const random = this.#random;
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2:
        return this.#publish(random.pick(this.#publishers));
      case 3:
      case 4:
      case 5:
        return this.#settle(random.pick(this.#consumers));
      case 6: {
        if (random.chance(0.5)) return;
        const [gone] = this.#consumers.splice(random.below(this.#consumers.length), 1);
        this.#leave(gone);
        gone.client.destroy();
        return this.#openConsumer(random.pick(QUEUES));
      }
      default:
        for (const consumer of this.#consumers) this.#barrier(consumer);
    }
  }

  #publish(publisher: Publisher): void {
    const random = this.#random;
    if (publisher.committing !== undefined) return;
    for (let count = random.between(1, 4); count > 0; count--) {
      const id = `m${this.#newest++}`;
      const number = this.#newest;
      const isFan = random.chance(0.3);
      const queues: QueueName[] = isFan
        ? ['work', 'short', 'copy']
        : [random.pick(['work', 'work', 'short', 'copy'] as const)];
      const text = id.padEnd(id.length + random.pick([0, 0, 100, 3000]), ' ');
      const copies = queues.map((queue) => this.#newCopy(id, queue, publisher, number));
      this.#result.published++;
      publisher.client.publish(isFan ? 'fan' : '', isFan ? '' : queues[0], text);
      if (publisher.transaction === undefined) publisher.sent.push(copies);
      else {
        publisher.transaction.publishes.push(...copies);
        for (const copy of copies) copy.transaction = publisher.transaction;
      }
    }
    if (publisher.transaction === undefined) return;
    if (random.chance(0.5) || publisher.transaction.publishes.length > 12) this.#end(publisher, random.chance(0.8));
  }

  #newCopy(id: string, queue: QueueName, { name }: Publisher, number: number): Copy {
    const copy: Copy = {
      id,
      queue,
      publisher: name,
      number,
      published: 'asked',
      acked: undefined,
      rejected: undefined,
      ackedDead: new Map(),
      transaction: undefined,
      wasSeen: false,
      isAckedAlone: false,
      isFound: false,
    };
    this.#copies.set(`${id} ${queue}`, copy);
    return copy;
  }

  #end(of: Publisher | Consumer, isCommit: boolean): void {
    const { transaction } = of;
    if (transaction === undefined || of.committing !== undefined) return;
    if (isCommit) {
      of.committing = transaction;
      of.transaction = newTransaction();
      of.client.send({ method: 'tx.commit' } as MethodInit);
      return;
    }
    for (const copy of transaction.publishes) copy.published = 'never';
    for (const copy of transaction.acks) copy.acked = undefined;
    transaction.isOpen = false;
    of.transaction = newTransaction();
    of.client.send({ method: 'tx.rollback' } as MethodInit);
    // The messages wait again: this consumer just does not ack them any more.
  }

  #settle(consumer: Consumer): void {
    const random = this.#random;
    for (let count = random.between(1, 3); count > 0 && consumer.held.length > 0; count--) {
      const [{ tag, copy, queue }] = consumer.held.splice(random.below(consumer.held.length), 1);
      const isDead = copy.queue !== queue;
      if (consumer.transaction !== undefined) {
        // Acks of dead letters are left alone: one transaction, one story.
        if (isDead || copy.rejected !== undefined || copy.transaction?.isOpen === true) continue;
        consumer.client.send({ method: 'basic.ack', deliveryTag: tag, multiple: false });
        copy.acked = 'asked';
        copy.transaction = consumer.transaction;
        consumer.transaction.acks.push(copy);
        if (random.chance(0.5)) {
          const id = `m${this.#newest++}`;
          const followUp = this.#newCopy(id, 'copy', { ...dummy, name: `c${this.#newest}` }, this.#newest);
          followUp.transaction = consumer.transaction;
          consumer.transaction.publishes.push(followUp);
          this.#result.published++;
          consumer.client.publish('', 'copy', id);
        }
        continue;
      }
      const kind = random.below(4);
      if (kind < 2) {
        consumer.client.send({ method: 'basic.ack', deliveryTag: tag, multiple: false });
        this.#result.acked++;
        if (isDead) copy.ackedDead.set(queue, copy.ackedDead.get(queue) ?? 'asked');
        else {
          copy.acked ??= 'asked';
          copy.isAckedAlone = true;
        }
        consumer.unsure.push({ copy, queue, what: 'acked' });
      } else if (kind === 2) consumer.client.send({ method: 'basic.reject', deliveryTag: tag, requeue: true });
      else if (queue === 'work') {
        consumer.client.send({ method: 'basic.reject', deliveryTag: tag, requeue: false });
        copy.rejected ??= 'asked';
        consumer.unsure.push({ copy, queue, what: 'rejected' });
      }
    }
    if (consumer.transaction !== undefined && random.chance(0.4)) this.#end(consumer, random.chance(0.85));
  }

  /** What it has settled is durable when this is answered, if queues were told before. */
  #barrier(consumer: Consumer): void {
    if (consumer.unsure.length === 0 || consumer.transaction !== undefined) return;
    const { unsure } = consumer;
    consumer.unsure = [];
    const life = this.#life;
    this.#clock.after(1, () => {
      if (life !== this.#life || consumer.client.isOver) return;
      consumer.asked.push(unsure);
      consumer.client.send({ method: 'exchange.declare', exchange: 'dlx', type: 'direct', durable: true });
    });
  }

  #leave(of: Publisher | Consumer): void {
    const { transaction } = of;
    // Nothing of it was asked to happen; what is being committed may have.
    for (const copy of transaction?.publishes ?? []) copy.published = 'never';
    for (const copy of transaction?.acks ?? []) copy.acked = undefined;
    if (transaction !== undefined) transaction.isOpen = false;
  }

  #crashed(): void {
    this.#life++;
    for (const each of [...this.#publishers, ...this.#consumers]) {
      this.#leave(each);
      each.client.lost();
    }
    this.#publishers = [];
    this.#consumers = [];
  }

  // --- the end ---

  /** Takes everything out of all queues and looks whether it is where it must be. */
  async #empty(): Promise<void> {
    this.#note('the end');
    await this.#clock.advance(5000);
    const found = new Map<string, QueueName[]>();
    for (const queue of QUEUES) {
      const newest = new Map<string, number>();
      let ackedTag = 0;
      let lastMs = this.#clock.monotonic();
      const client = new AmqpClient(this.#accept, {
        onMethod: (method, body) => {
          if (method.method.endsWith('.close')) this.#fail(`${queue} cannot be emptied: ${JSON.stringify(method)}`);
          if (method.method !== 'basic.deliver') return;
          lastMs = this.#clock.monotonic();
          ackedTag = method.deliveryTag;
          const id = body.trimEnd();
          const copy = this.#saw(queue, body);
          found.set(id, [...(found.get(id) ?? []), queue]);
          if (copy === undefined || copy.queue !== queue) return;
          const before = newest.get(copy.publisher) ?? 0;
          if (copy.number < before) this.#fail(`${id} in ${queue} after a later one of ${copy.publisher}`);
          newest.set(copy.publisher, copy.number);
        },
      });
      client.send({ method: 'basic.consume', queue, consumerTag: 'c' });
      while (this.#clock.monotonic() - lastMs < 300) await this.#clock.advance(50);
      if (ackedTag > 0) client.send({ method: 'basic.ack', deliveryTag: ackedTag, multiple: true });
      await this.#clock.advance(50);
      client.destroy();
      const counts = this.#node.broker?.broker.queues.get(queue)?.counts();
      if (counts === undefined || counts.ready + counts.inFlight > 0) {
        this.#fail(`${queue} has ${JSON.stringify(counts)} left`);
      }
    }
    for (const copy of this.#copies.values()) this.#checkCopy(copy, found.get(copy.id) ?? []);
    this.#checkTransactions();
  }

  #checkCopy(copy: Copy, found: readonly QueueName[]): void {
    const { id, queue, published, acked, rejected, ackedDead } = copy;
    const here = found.filter((name) => name === queue).length;
    const dead = DEAD[queue] ?? [];
    const deadCounts = dead.map((name) => found.filter((each) => each === name).length);
    if (here > 1 || deadCounts.some((count) => count > 1)) this.#fail(`${id} of ${queue} twice: ${found.join(' ')}`);
    const isAnywhere = here > 0 || deadCounts.some((count) => count > 0);
    if (here > 0 && deadCounts.some((count) => count > 0)) this.#fail(`${id} in ${queue} and a dead letter of it`);
    const isDeadSeen = dead.some((name, index) => deadCounts[index] > 0 || ackedDead.has(name));
    if (isDeadSeen) {
      // All or none.
      dead.forEach((name, index) => {
        if (deadCounts[index] === 0 && !ackedDead.has(name))
          this.#fail(`${id}, a dead letter of ${queue}, is not in ${name}`);
      });
    }
    if (published === 'answered' && !isAnywhere && acked === undefined && !isDeadSeen) {
      this.#fail(`${id} of ${queue} is lost (${rejected === undefined ? 'nobody rejected it' : 'it was rejected'})`);
    }
    copy.isFound = isAnywhere || isDeadSeen;
    if (isAnywhere || isDeadSeen) copy.wasSeen = true;
  }

  /** Of those whose commit was not answered: all or nothing, acks with publishes. */
  #checkTransactions(): void {
    const open = new Set<Transaction>();
    for (const { transaction } of this.#copies.values()) if (transaction?.isOpen === true) open.add(transaction);
    for (const { publishes, acks } of open) {
      const seen = publishes.filter(({ wasSeen }) => wasSeen).length;
      if (seen > 0 && seen < publishes.length) {
        this.#fail(
          `a transaction is half there: ${publishes.map(({ id, queue, wasSeen }) => `${id} ${queue} ${wasSeen}`).join(', ')}`,
        );
      }
      if (publishes.length === 0 || acks.length === 0) continue;
      // What was acked with them is gone with them.
      const isDone = seen > 0;
      for (const copy of acks) {
        if (isDone && copy.isFound) this.#fail(`${copy.id} is back although its transaction has published`);
        if (!isDone && !copy.isFound && !copy.isAckedAlone) this.#fail(`${copy.id} is gone without its transaction`);
      }
    }
  }
}

const dummy = {} as Publisher;

function newTransaction(): Transaction {
  return { publishes: [], acks: [], isOpen: true };
}

function settleSurely(copy: Copy, queue: QueueName, what: 'acked' | 'rejected'): void {
  if (copy.queue !== queue) copy.ackedDead.set(queue, 'answered');
  else copy[what] = 'answered';
}
